"""What travels: Avro schemas, topics, records, the codec, and compatibility."""

"""Where it runs and how it breaks: the command line, the local Kafka, regions and drills."""

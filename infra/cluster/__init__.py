"""Real Kafka on this machine: jars and Java from pip, brokers as plain processes, one folder a region."""

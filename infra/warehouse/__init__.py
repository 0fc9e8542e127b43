"""Clicks, answers and drills in ClickHouse: the sink, its schema, and reading what is there."""

-- For a server or cluster where ClickHouse shall read the topics itself, without Headrace's sink.
--
-- Replace @brokers@, @registry@ (a Confluent-compatible schema registry, `headrace schemas register`)
-- and @region@, and run it after the migrations. The views of 002 fill the aggregates as ever.
--
-- What it gives up: ClickHouse commits its offsets after the insert, so a server that dies in
-- between inserts a block again; `FINAL` stays exact, the aggregates do not. `batch` is 0.
-- Records that cannot be read go to `unreadable` instead of stopping the topic.

CREATE TABLE IF NOT EXISTS clicks_queue
(
    event_id   String,
    user_id    String,
    item_id    String,
    event_type String,
    ts         Int64,
    session_id String,
    query      Nullable(String),
    price      Nullable(Float64),
    quantity   Nullable(Int32)
)
ENGINE = Kafka
SETTINGS kafka_broker_list = '@brokers@',
         kafka_topic_list = 'clicks',
         kafka_group_name = 'headrace-clickhouse',
         kafka_format = 'AvroConfluent',
         format_avro_schema_registry_url = '@registry@',
         kafka_handle_error_mode = 'stream',
         kafka_max_block_size = 65536;

CREATE TABLE IF NOT EXISTS recommendations_queue
(
    event_id       String,
    user_id        String,
    item_ids       Array(String),
    scores         Array(Float32),
    reasons        Array(String),
    model          String,
    arm            String,
    tier           String,
    clicked_at     Int64,
    features_as_of Int64,
    scored_at      Int64
)
ENGINE = Kafka
SETTINGS kafka_broker_list = '@brokers@',
         kafka_topic_list = 'recommendations',
         kafka_group_name = 'headrace-clickhouse',
         kafka_format = 'AvroConfluent',
         format_avro_schema_registry_url = '@registry@',
         kafka_handle_error_mode = 'stream',
         kafka_max_block_size = 65536;

CREATE TABLE IF NOT EXISTS unreadable
(
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32,
    kafka_offset    UInt64,
    kafka_time      DateTime64(3, 'UTC'),
    error           String,
    value           String CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (kafka_topic, kafka_partition, kafka_offset);

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_queue_view TO clicks AS
SELECT toUUIDOrZero(event_id) AS event_id, user_id, item_id, event_type,
       fromUnixTimestamp64Milli(ts, 'UTC') AS ts, session_id, ifNull(query, '') AS query,
       price, quantity, '@region@' AS region, '@region@' AS sink, _topic AS kafka_topic,
       _partition AS kafka_partition, _offset AS kafka_offset,
       ifNull(_timestamp_ms, now64(3)) AS kafka_time, 0 AS batch
FROM clicks_queue
WHERE length(_error) = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS recommendations_queue_view TO recommendations AS
SELECT toUUIDOrZero(event_id) AS event_id, user_id, item_ids, scores, reasons, model, arm, tier,
       fromUnixTimestamp64Milli(clicked_at, 'UTC') AS clicked_at,
       fromUnixTimestamp64Milli(features_as_of, 'UTC') AS features_as_of,
       fromUnixTimestamp64Milli(scored_at, 'UTC') AS scored_at,
       '@region@' AS region, '@region@' AS sink, _topic AS kafka_topic,
       _partition AS kafka_partition, _offset AS kafka_offset,
       ifNull(_timestamp_ms, now64(3)) AS kafka_time, 0 AS batch
FROM recommendations_queue
WHERE length(_error) = 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_unreadable_view TO unreadable AS
SELECT _topic AS kafka_topic, _partition AS kafka_partition, _offset AS kafka_offset,
       ifNull(_timestamp_ms, now64(3)) AS kafka_time, _error AS error, _raw_message AS value
FROM clicks_queue
WHERE length(_error) > 0;

CREATE MATERIALIZED VIEW IF NOT EXISTS recommendations_unreadable_view TO unreadable AS
SELECT _topic AS kafka_topic, _partition AS kafka_partition, _offset AS kafka_offset,
       ifNull(_timestamp_ms, now64(3)) AS kafka_time, _error AS error, _raw_message AS value
FROM recommendations_queue
WHERE length(_error) > 0;

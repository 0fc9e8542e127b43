-- What Headrace's warehouse keeps, one row for each Kafka record. Names for people who ask:
--
--   clicks           event_id, user_id, item_id, event_type, ts, session_id, query, price, quantity
--   recommendations  event_id (of the click), user_id, item_ids, scores, reasons, model, arm, tier,
--                    clicked_at, features_as_of, scored_at
--   alerts           subject, kind, message, value, raised_at
--   dead_letters     reason, detail, origin_topic, origin_partition, origin_offset, key, value,
--                    rejected_at
--   models           model, version, uri, sha256, contract, metric_names, metric_values,
--                    announced_at; a withdrawal is a row with an empty version
--   drills           drill_id, name, region, seed, verdict, measure_names, measure_values, detail,
--                    started_at, ended_at
--   batches          what the sink wrote, and is about to write
--
-- and in every one of the first six:
--
--   region           the region that took the click: our own, or the peer whose topic was mirrored
--                    (in `drills` it is the record's own: the region that was drilled)
--   sink             the region whose sink wrote the row
--   kafka_topic, kafka_partition, kafka_offset, kafka_time   where and when Kafka had it
--   batch            number of the sink's batch that wrote the row
--
-- All times are UTC, in milliseconds. The aggregates are in 002.
--
-- A record that Kafka holds twice (a worker that was killed answers some clicks again; a mirror
-- repeats itself) is two rows until a merge makes them one: `FROM clicks FINAL` is exact at any
-- time. Of several answers to one click the first one stays. The sink itself adds no repetition.
--
-- Partitions are days of kafka_time, not of event time, so that a replay of old clicks is one
-- partition and not a thousand, and so that the time to live means "received so long ago".
-- The sorting key is the identity of a row; a shopper's events of an hour lie side by side.
--
-- Every statement may run twice.

CREATE TABLE IF NOT EXISTS clicks
(
    event_id        UUID,
    user_id         String CODEC(ZSTD(1)),
    item_id         String CODEC(ZSTD(1)),
    event_type      LowCardinality(String),
    ts              DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    session_id      String CODEC(ZSTD(1)),
    query           String CODEC(ZSTD(1)),
    price           Nullable(Float64) CODEC(ZSTD(1)),
    quantity        Nullable(Int32) CODEC(ZSTD(1)),
    region          LowCardinality(String),
    sink            LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32 CODEC(ZSTD(1)),
    kafka_offset    UInt64 CODEC(T64, ZSTD(1)),
    kafka_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    batch           UInt64 CODEC(ZSTD(1)),
    precedence      UInt64 MATERIALIZED bitNot(kafka_offset) CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (toStartOfHour(ts), user_id, ts, event_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS recommendations
(
    event_id        UUID,
    user_id         String CODEC(ZSTD(1)),
    item_ids        Array(String) CODEC(ZSTD(1)),
    scores          Array(Float32) CODEC(ZSTD(1)),
    reasons         Array(LowCardinality(String)),
    model           LowCardinality(String),
    arm             LowCardinality(String),
    tier            LowCardinality(String),
    clicked_at      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    features_as_of  DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    scored_at       DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    region          LowCardinality(String),
    sink            LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32 CODEC(ZSTD(1)),
    kafka_offset    UInt64 CODEC(T64, ZSTD(1)),
    kafka_time      DateTime64(3, 'UTC') CODEC(Delta, ZSTD(1)),
    batch           UInt64 CODEC(ZSTD(1)),
    precedence      UInt64 MATERIALIZED bitNot(kafka_offset) CODEC(T64, ZSTD(1))
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (toStartOfHour(clicked_at), user_id, clicked_at, event_id)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS alerts
(
    subject         String,
    kind            LowCardinality(String),
    message         String CODEC(ZSTD(1)),
    value           Nullable(Float64),
    raised_at       DateTime64(3, 'UTC'),
    region          LowCardinality(String),
    sink            LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32,
    kafka_offset    UInt64,
    kafka_time      DateTime64(3, 'UTC'),
    batch           UInt64
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (kind, raised_at, subject, sink, kafka_topic, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS dead_letters
(
    reason           LowCardinality(String),
    detail           String CODEC(ZSTD(1)),
    origin_topic     LowCardinality(String),
    origin_partition Int32,
    origin_offset    Int64,
    key              Nullable(String) CODEC(ZSTD(1)),
    value            Nullable(String) CODEC(ZSTD(3)),
    rejected_at      DateTime64(3, 'UTC'),
    region           LowCardinality(String),
    sink             LowCardinality(String),
    kafka_topic      LowCardinality(String),
    kafka_partition  UInt32,
    kafka_offset     UInt64,
    kafka_time       DateTime64(3, 'UTC'),
    batch            UInt64,
    precedence       UInt64 MATERIALIZED bitNot(kafka_offset)
)
ENGINE = ReplacingMergeTree(precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (region, origin_topic, origin_partition, origin_offset)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS models
(
    model           String,
    version         String,
    uri             String,
    sha256          String,
    contract        String,
    metric_names    Array(LowCardinality(String)),
    metric_values   Array(Float64),
    announced_at    DateTime64(3, 'UTC'),
    region          LowCardinality(String),
    sink            LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32,
    kafka_offset    UInt64,
    kafka_time      DateTime64(3, 'UTC'),
    batch           UInt64
)
ENGINE = ReplacingMergeTree
ORDER BY (model, announced_at, sink, kafka_topic, kafka_partition, kafka_offset)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE TABLE IF NOT EXISTS drills
(
    drill_id        String,
    name            LowCardinality(String),
    region          LowCardinality(String),
    seed            Int64,
    verdict         LowCardinality(String),
    measure_names   Array(LowCardinality(String)),
    measure_values  Array(Float64),
    detail          String CODEC(ZSTD(1)),
    started_at      DateTime64(3, 'UTC'),
    ended_at        DateTime64(3, 'UTC'),
    sink            LowCardinality(String),
    kafka_topic     LowCardinality(String),
    kafka_partition UInt32,
    kafka_offset    UInt64,
    kafka_time      DateTime64(3, 'UTC'),
    batch           UInt64
)
ENGINE = ReplacingMergeTree
ORDER BY (drill_id)
SETTINGS non_replicated_deduplication_window = 1000;

-- The sink's journal: a batch is written down here before it is inserted, with the offsets from
-- `firsts` to before `ends` of each partition. The newest one of a table may be half done after a
-- kill; it is settled at the start by reading the same offsets again.
CREATE TABLE IF NOT EXISTS batches
(
    sink       LowCardinality(String),
    target     LowCardinality(String),
    batch      UInt64,
    topics     Array(LowCardinality(String)),
    partitions Array(UInt32),
    firsts     Array(UInt64),
    ends       Array(UInt64),
    owner      String,
    begun_at   DateTime64(3, 'UTC')
)
ENGINE = MergeTree
ORDER BY (sink, target, batch);

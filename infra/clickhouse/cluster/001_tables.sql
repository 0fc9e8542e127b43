-- 001_tables.sql for a cluster, made by infra/warehouse/cluster.py; what the columns mean is said there.

CREATE TABLE IF NOT EXISTS clicks_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/clicks', '{replica}', precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (toStartOfHour(ts), user_id, ts, event_id);

CREATE TABLE IF NOT EXISTS clicks ON CLUSTER '@cluster@' AS clicks_local
ENGINE = Distributed('@cluster@', currentDatabase(), clicks_local, cityHash64(user_id));

CREATE TABLE IF NOT EXISTS recommendations_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/recommendations', '{replica}', precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (toStartOfHour(clicked_at), user_id, clicked_at, event_id);

CREATE TABLE IF NOT EXISTS recommendations ON CLUSTER '@cluster@' AS recommendations_local
ENGINE = Distributed('@cluster@', currentDatabase(), recommendations_local, cityHash64(user_id));

CREATE TABLE IF NOT EXISTS alerts_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/alerts', '{replica}')
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (kind, raised_at, subject, sink, kafka_topic, kafka_partition, kafka_offset);

CREATE TABLE IF NOT EXISTS alerts ON CLUSTER '@cluster@' AS alerts_local
ENGINE = Distributed('@cluster@', currentDatabase(), alerts_local, rand());

CREATE TABLE IF NOT EXISTS dead_letters_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/dead_letters', '{replica}', precedence)
PARTITION BY toYYYYMMDD(kafka_time)
ORDER BY (region, origin_topic, origin_partition, origin_offset);

CREATE TABLE IF NOT EXISTS dead_letters ON CLUSTER '@cluster@' AS dead_letters_local
ENGINE = Distributed('@cluster@', currentDatabase(), dead_letters_local, rand());

CREATE TABLE IF NOT EXISTS models_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/models', '{replica}')
ORDER BY (model, announced_at, sink, kafka_topic, kafka_partition, kafka_offset);

CREATE TABLE IF NOT EXISTS models ON CLUSTER '@cluster@' AS models_local
ENGINE = Distributed('@cluster@', currentDatabase(), models_local, rand());

CREATE TABLE IF NOT EXISTS drills_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/drills', '{replica}')
ORDER BY (drill_id);

CREATE TABLE IF NOT EXISTS drills ON CLUSTER '@cluster@' AS drills_local
ENGINE = Distributed('@cluster@', currentDatabase(), drills_local, rand());

CREATE TABLE IF NOT EXISTS batches_local ON CLUSTER '@cluster@'
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
ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/batches', '{replica}')
ORDER BY (sink, target, batch);

CREATE TABLE IF NOT EXISTS batches ON CLUSTER '@cluster@' AS batches_local
ENGINE = Distributed('@cluster@', currentDatabase(), batches_local, rand());

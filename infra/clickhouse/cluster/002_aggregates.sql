-- 002_aggregates.sql for a cluster, made by infra/warehouse/cluster.py; what the columns mean is said there.

CREATE TABLE IF NOT EXISTS clicks_minute_local ON CLUSTER '@cluster@'
(
    minute     DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink       LowCardinality(String),
    region     LowCardinality(String),
    event_type LowCardinality(String),
    clicks     SimpleAggregateFunction(sum, UInt64),
    revenue    SimpleAggregateFunction(sum, Float64),
    users      AggregateFunction(uniqCombined64(14), String),
    items      AggregateFunction(uniqCombined64(14), String),
    last_batch SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/clicks_minute', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, sink, region, event_type);

CREATE TABLE IF NOT EXISTS clicks_minute ON CLUSTER '@cluster@' AS clicks_minute_local
ENGINE = Distributed('@cluster@', currentDatabase(), clicks_minute_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_minute_view ON CLUSTER '@cluster@' TO clicks_minute_local AS
SELECT toStartOfMinute(ts) AS minute, sink, region, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64State(14)(item_id) AS items,
       max(batch) AS last_batch
FROM clicks_local
GROUP BY minute, sink, region, event_type;

CREATE TABLE IF NOT EXISTS clicks_hour_local ON CLUSTER '@cluster@'
(
    hour       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink       LowCardinality(String),
    region     LowCardinality(String),
    event_type LowCardinality(String),
    clicks     SimpleAggregateFunction(sum, UInt64),
    revenue    SimpleAggregateFunction(sum, Float64),
    users      AggregateFunction(uniqCombined64(14), String),
    items      AggregateFunction(uniqCombined64(14), String),
    last_batch SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/clicks_hour', '{replica}')
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, event_type);

CREATE TABLE IF NOT EXISTS clicks_hour ON CLUSTER '@cluster@' AS clicks_hour_local
ENGINE = Distributed('@cluster@', currentDatabase(), clicks_hour_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_hour_view ON CLUSTER '@cluster@' TO clicks_hour_local AS
SELECT toStartOfHour(ts) AS hour, sink, region, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64State(14)(item_id) AS items,
       max(batch) AS last_batch
FROM clicks_local
GROUP BY hour, sink, region, event_type;

CREATE TABLE IF NOT EXISTS items_hour_local ON CLUSTER '@cluster@'
(
    hour       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink       LowCardinality(String),
    region     LowCardinality(String),
    item_id    String CODEC(ZSTD(1)),
    event_type LowCardinality(String),
    clicks     SimpleAggregateFunction(sum, UInt64),
    revenue    SimpleAggregateFunction(sum, Float64),
    last_batch SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/items_hour', '{replica}')
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, item_id, event_type);

CREATE TABLE IF NOT EXISTS items_hour ON CLUSTER '@cluster@' AS items_hour_local
ENGINE = Distributed('@cluster@', currentDatabase(), items_hour_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS items_hour_view ON CLUSTER '@cluster@' TO items_hour_local AS
SELECT toStartOfHour(ts) AS hour, sink, region, item_id, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       max(batch) AS last_batch
FROM clicks_local
GROUP BY hour, sink, region, item_id, event_type;

CREATE TABLE IF NOT EXISTS answers_minute_local ON CLUSTER '@cluster@'
(
    minute       DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink         LowCardinality(String),
    region       LowCardinality(String),
    model        LowCardinality(String),
    arm          LowCardinality(String),
    tier         LowCardinality(String),
    answers      SimpleAggregateFunction(sum, UInt64),
    users        AggregateFunction(uniqCombined64(14), String),
    items        AggregateFunction(uniqCombined64(14), String),
    latency_ms   AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    staleness_ms AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    last_batch   SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/answers_minute', '{replica}')
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, sink, region, model, arm, tier);

CREATE TABLE IF NOT EXISTS answers_minute ON CLUSTER '@cluster@' AS answers_minute_local
ENGINE = Distributed('@cluster@', currentDatabase(), answers_minute_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS answers_minute_view ON CLUSTER '@cluster@' TO answers_minute_local AS
SELECT toStartOfMinute(clicked_at) AS minute, sink, region, model, arm, tier,
       count() AS answers,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64ArrayState(14)(item_ids) AS items,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(scored_at) - toUnixTimestamp64Milli(clicked_at)) AS latency_ms,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(clicked_at) - toUnixTimestamp64Milli(features_as_of)) AS staleness_ms,
       max(batch) AS last_batch
FROM recommendations_local
GROUP BY minute, sink, region, model, arm, tier;

CREATE TABLE IF NOT EXISTS answers_hour_local ON CLUSTER '@cluster@'
(
    hour         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink         LowCardinality(String),
    region       LowCardinality(String),
    model        LowCardinality(String),
    arm          LowCardinality(String),
    tier         LowCardinality(String),
    answers      SimpleAggregateFunction(sum, UInt64),
    users        AggregateFunction(uniqCombined64(14), String),
    items        AggregateFunction(uniqCombined64(14), String),
    latency_ms   AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    staleness_ms AggregateFunction(quantilesTDigest(0.5, 0.95, 0.99), Int64),
    last_batch   SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/answers_hour', '{replica}')
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, model, arm, tier);

CREATE TABLE IF NOT EXISTS answers_hour ON CLUSTER '@cluster@' AS answers_hour_local
ENGINE = Distributed('@cluster@', currentDatabase(), answers_hour_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS answers_hour_view ON CLUSTER '@cluster@' TO answers_hour_local AS
SELECT toStartOfHour(clicked_at) AS hour, sink, region, model, arm, tier,
       count() AS answers,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64ArrayState(14)(item_ids) AS items,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(scored_at) - toUnixTimestamp64Milli(clicked_at)) AS latency_ms,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(clicked_at) - toUnixTimestamp64Milli(features_as_of)) AS staleness_ms,
       max(batch) AS last_batch
FROM recommendations_local
GROUP BY hour, sink, region, model, arm, tier;

CREATE TABLE IF NOT EXISTS rejections_hour_local ON CLUSTER '@cluster@'
(
    hour         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink         LowCardinality(String),
    region       LowCardinality(String),
    reason       LowCardinality(String),
    origin_topic LowCardinality(String),
    letters      SimpleAggregateFunction(sum, UInt64),
    last_batch   SimpleAggregateFunction(max, UInt64)
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/{shard}/{database}/rejections_hour', '{replica}')
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, reason, origin_topic);

CREATE TABLE IF NOT EXISTS rejections_hour ON CLUSTER '@cluster@' AS rejections_hour_local
ENGINE = Distributed('@cluster@', currentDatabase(), rejections_hour_local, rand());

CREATE MATERIALIZED VIEW IF NOT EXISTS rejections_hour_view ON CLUSTER '@cluster@' TO rejections_hour_local AS
SELECT toStartOfHour(rejected_at) AS hour, sink, region, reason, origin_topic,
       count() AS letters, max(batch) AS last_batch
FROM dead_letters_local
GROUP BY hour, sink, region, reason, origin_topic;

-- Minutes and hours, kept by materialized views as batches arrive, for dashboards.
--
--   clicks_minute, clicks_hour    (minute|hour of ts, sink, region, event_type):
--                                 clicks, revenue (price * quantity of purchases), users, items
--   items_hour                    (hour of ts, sink, region, item_id, event_type): clicks, revenue
--   answers_minute, answers_hour  (minute|hour of clicked_at, sink, region, model, arm, tier):
--                                 answers, users, items (recommended),
--                                 latency_ms (scored_at - clicked_at),
--                                 staleness_ms (clicked_at - features_as_of)
--   rejections_hour               (hour of rejected_at, sink, region, reason, origin_topic): letters
--
-- Read sums with sum(...), `users` and `items` with uniqCombined64Merge(14)(...), and latency with
-- quantilesTDigestMerge(0.5, 0.95, 0.99)(latency_ms). They count Kafka's records, each once: a
-- repeated answer counts twice here and once in `recommendations FINAL`.
--
-- `last_batch` tells the sink which batches have arrived, after a kill in between.

CREATE TABLE IF NOT EXISTS clicks_minute
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
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, sink, region, event_type)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_minute_view TO clicks_minute AS
SELECT toStartOfMinute(ts) AS minute, sink, region, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64State(14)(item_id) AS items,
       max(batch) AS last_batch
FROM clicks
GROUP BY minute, sink, region, event_type;

CREATE TABLE IF NOT EXISTS clicks_hour
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
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, event_type)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS clicks_hour_view TO clicks_hour AS
SELECT toStartOfHour(ts) AS hour, sink, region, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64State(14)(item_id) AS items,
       max(batch) AS last_batch
FROM clicks
GROUP BY hour, sink, region, event_type;

CREATE TABLE IF NOT EXISTS items_hour
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
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, item_id, event_type)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS items_hour_view TO items_hour AS
SELECT toStartOfHour(ts) AS hour, sink, region, item_id, event_type,
       count() AS clicks,
       sumIf(ifNull(price, 0) * ifNull(quantity, 1), event_type = 'purchase') AS revenue,
       max(batch) AS last_batch
FROM clicks
GROUP BY hour, sink, region, item_id, event_type;

CREATE TABLE IF NOT EXISTS answers_minute
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
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(minute)
ORDER BY (minute, sink, region, model, arm, tier)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS answers_minute_view TO answers_minute AS
SELECT toStartOfMinute(clicked_at) AS minute, sink, region, model, arm, tier,
       count() AS answers,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64ArrayState(14)(item_ids) AS items,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(scored_at) - toUnixTimestamp64Milli(clicked_at)) AS latency_ms,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(clicked_at) - toUnixTimestamp64Milli(features_as_of)) AS staleness_ms,
       max(batch) AS last_batch
FROM recommendations
GROUP BY minute, sink, region, model, arm, tier;

CREATE TABLE IF NOT EXISTS answers_hour
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
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, model, arm, tier)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS answers_hour_view TO answers_hour AS
SELECT toStartOfHour(clicked_at) AS hour, sink, region, model, arm, tier,
       count() AS answers,
       uniqCombined64State(14)(user_id) AS users,
       uniqCombined64ArrayState(14)(item_ids) AS items,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(scored_at) - toUnixTimestamp64Milli(clicked_at)) AS latency_ms,
       quantilesTDigestState(0.5, 0.95, 0.99)(toUnixTimestamp64Milli(clicked_at) - toUnixTimestamp64Milli(features_as_of)) AS staleness_ms,
       max(batch) AS last_batch
FROM recommendations
GROUP BY hour, sink, region, model, arm, tier;

CREATE TABLE IF NOT EXISTS rejections_hour
(
    hour         DateTime('UTC') CODEC(Delta, ZSTD(1)),
    sink         LowCardinality(String),
    region       LowCardinality(String),
    reason       LowCardinality(String),
    origin_topic LowCardinality(String),
    letters      SimpleAggregateFunction(sum, UInt64),
    last_batch   SimpleAggregateFunction(max, UInt64)
)
ENGINE = AggregatingMergeTree
PARTITION BY toYYYYMM(hour)
ORDER BY (hour, sink, region, reason, origin_topic)
SETTINGS non_replicated_deduplication_window = 1000;

CREATE MATERIALIZED VIEW IF NOT EXISTS rejections_hour_view TO rejections_hour AS
SELECT toStartOfHour(rejected_at) AS hour, sink, region, reason, origin_topic,
       count() AS letters, max(batch) AS last_batch
FROM dead_letters
GROUP BY hour, sink, region, reason, origin_topic;

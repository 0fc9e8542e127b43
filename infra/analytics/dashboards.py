"""Grafana's dashboards as code: `infra/grafana/*.json` are what this makes (a test holds them to it).

    python -m infra.analytics.dashboards        writes them anew

Two boards: what the service does (Prometheus, from the workers' metrics) and what it earns
(ClickHouse, from the minute and hour aggregates, with Grafana's own ClickHouse data source). Both let
their reader choose the data source, so that no name of an installation is in them.
"""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click

FOLDER: Final = Path(str(resources.files("infra"))) / "grafana"
# Grafana's grid is 24 columns wide; two panels stand side by side.
COLUMNS: Final = 24
HEIGHT: Final = 8
SCHEMA_VERSION: Final = 39
CLICKHOUSE: Final = "grafana-clickhouse-datasource"

Json = dict[str, Any]

# (title, unit, legend, PromQL)
SERVICE: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("Clicks a second", "cps", "{{region}} {{worker}}", "rate(headrace_clicks_total[$__rate_interval])"),
    ("Answers a second, by tier", "cps", "{{tier}}", "sum by (tier) (rate(headrace_recommendations_total[$__rate_interval]))"),
    ("Kafka's time stamp to answer, 95 %", "s", "{{region}}", "histogram_quantile(0.95, sum by (region, le) (rate(headrace_click_age_seconds_bucket[$__rate_interval])))"),
    ("Time of a batch, 95 %", "s", "{{worker}}", "histogram_quantile(0.95, sum by (worker, le) (rate(headrace_batch_seconds_bucket[$__rate_interval])))"),
    ("Lag, records", "short", "{{region}} {{worker}}", "headrace_lag_records"),
    ("Partitions owned", "short", "{{region}} {{worker}}", "headrace_partitions"),
    ("Rejected a second, by reason", "cps", "{{reason}}", "sum by (reason) (rate(headrace_dead_letters_total[$__rate_interval]))"),
    ("Batches that a recommender failed", "short", "{{label}}", "sum by (label) (increase(headrace_recommender_failures_total[$__rate_interval]))"),
    ("Rebalances and restores", "short", "{{worker}}", "increase(headrace_rebalances_total[$__rate_interval])"),
    ("Shoppers in state", "short", "{{region}} {{worker}}", "headrace_state_users"),
)  # fmt: skip

_MINUTE: Final = "$__timeFilter(minute)"
_HOUR: Final = "$__timeFilter(hour)"
# (title, unit, is it a line over time, SQL). As in `headrace analytics --fast`: what Kafka repeats
# counts twice here.
EARNINGS: Final[tuple[tuple[str, str, bool, str], ...]] = (
    ("Events a minute, by kind", "short", True,
     f"SELECT minute AS time, event_type, sum(clicks) AS events FROM clicks_minute WHERE {_MINUTE} GROUP BY time, event_type ORDER BY time"),
    ("Answers a minute, by tier", "short", True,
     f"SELECT minute AS time, tier, sum(answers) AS n FROM answers_minute WHERE {_MINUTE} GROUP BY time, tier ORDER BY time"),
    ("Click to recommendation, ms", "ms", True,
     "SELECT minute AS time, q[1] AS p50, q[2] AS p95, q[3] AS p99 FROM (SELECT minute, "
     f"quantilesTDigestMerge(0.5, 0.95, 0.99)(latency_ms) AS q FROM answers_minute WHERE {_MINUTE} GROUP BY minute) ORDER BY time"),
    ("Revenue an hour, by region", "short", True,
     f"SELECT hour AS time, region, sum(revenue) AS earned FROM clicks_hour WHERE {_HOUR} GROUP BY time, region ORDER BY time"),
    ("Shoppers an hour", "short", True,
     f"SELECT hour AS time, uniqCombined64Merge(14)(users) AS shoppers FROM clicks_hour WHERE {_HOUR} GROUP BY time ORDER BY time"),
    ("Items recommended an hour, by model", "short", True,
     f"SELECT hour AS time, model, uniqCombined64Merge(14)(items) AS shown FROM answers_hour WHERE {_HOUR} GROUP BY time, model ORDER BY time"),
    ("Most wanted items", "short", False,
     f"SELECT item_id, sumIf(clicks, event_type = 'view') AS views, sumIf(clicks, event_type = 'purchase') AS purchases, "
     f"sum(items_hour.revenue) AS earned FROM items_hour WHERE {_HOUR} GROUP BY item_id ORDER BY views DESC LIMIT 20"),
    ("Answers by model, arm and tier", "short", False,
     f"SELECT model, arm, tier, sum(answers) AS n FROM answers_hour WHERE {_HOUR} GROUP BY model, arm, tier ORDER BY n DESC LIMIT 50"),
    ("Rejected records", "short", False,
     f"SELECT reason, origin_topic, sum(letters) AS n FROM rejections_hour WHERE {_HOUR} GROUP BY reason, origin_topic ORDER BY n DESC LIMIT 50"),
    ("Drills", "short", False,
     "SELECT ended_at, name, region, verdict, arrayStringConcat(arrayMap((n, v) -> concat(n, ' ', toString(round(v, 3))), "
     "measure_names, measure_values), ', ') AS measures FROM drills FINAL ORDER BY ended_at DESC LIMIT 50"),
)  # fmt: skip


def boards() -> dict[str, Json]:
    """File name -> dashboard."""
    service = [
        _panel(at, "timeseries", title, unit, {"type": "prometheus", "uid": "${source}"})
        | {"targets": [{"refId": "A", "expr": query, "legendFormat": legend}]}
        for at, (title, unit, legend, query) in enumerate(SERVICE)
    ]
    earnings = [
        _panel(at, "timeseries" if line else "table", title, unit, {"type": CLICKHOUSE, "uid": "${source}"})
        | {"targets": [_clickhouse(query, line=line)]}
        for at, (title, unit, line, query) in enumerate(EARNINGS)
    ]  # fmt: skip
    return {
        "service.json": _board("headrace-service", "Headrace: service", "prometheus", "10s", service),
        "earnings.json": _board("headrace-earnings", "Headrace: earnings", CLICKHOUSE, "1m", earnings),
    }  # fmt: skip


def _clickhouse(query: str, *, line: bool) -> Json:
    return {
        "refId": "A",
        "editorType": "sql",
        "rawSql": query,
        "format": 0 if line else 1,
        "queryType": "timeseries" if line else "table",
    }


def _panel(at: int, kind: str, title: str, unit: str, source: Json) -> Json:
    half = COLUMNS // 2
    return {
        "id": at + 1,
        "type": kind,
        "title": title,
        "datasource": source,
        "gridPos": {"x": at % 2 * half, "y": at // 2 * HEIGHT, "w": half, "h": HEIGHT},
        "fieldConfig": {"defaults": {"unit": unit}, "overrides": []},
    }


def _board(uid: str, title: str, source: str, refresh: str, panels: list[Json]) -> Json:
    return {
        "uid": uid,
        "title": title,
        "tags": ["headrace"],
        "timezone": "utc",
        "schemaVersion": SCHEMA_VERSION,
        "refresh": refresh,
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "source", "label": "Source", "type": "datasource", "query": source}]
        },
        "panels": panels,
    }


def text_of(board: Json) -> str:
    """The file of a dashboard."""
    return json.dumps(board, indent=2) + "\n"


@click.command()
def main() -> None:
    """Write the dashboards' files."""
    for name, board in boards().items():
        (FOLDER / name).write_text(text_of(board), encoding="utf-8")
        click.echo(FOLDER / name)


if __name__ == "__main__":
    main()

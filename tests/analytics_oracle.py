"""The named questions computed once more, by polars, from plain records: what answers are held to.

Written from the questions' definitions, not from their SQL: joins of everything with everything,
which is fine for small histories.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import polars as pl

ACTS: Final = ("view", "cart", "purchase")
CLICKS: Final = {
    "event_id": pl.String, "user_id": pl.String, "item_id": pl.String, "event_type": pl.String, "ts": pl.Int64,
    "session_id": pl.String, "price": pl.Float64, "quantity": pl.Int64, "region": pl.String, "kafka_ms": pl.Int64,
    "kafka_offset": pl.Int64,
}  # fmt: skip
ANSWERS: Final = {
    "event_id": pl.String, "user_id": pl.String, "item_ids": pl.List(pl.String), "model": pl.String, "arm": pl.String,
    "tier": pl.String, "region": pl.String, "clicked_at": pl.Int64, "scored_at": pl.Int64, "kafka_offset": pl.Int64,
}  # fmt: skip

Row = dict[str, Any]


def clicks_of(records: Sequence[Row]) -> pl.DataFrame:
    """Clicks, each once."""
    frame = pl.DataFrame(records, schema=CLICKS)
    return frame.sort("kafka_offset").unique("event_id", keep="first", maintain_order=True)


def answers_of(records: Sequence[Row]) -> pl.DataFrame:
    """Answers, of several to one click the first."""
    frame = pl.DataFrame(records, schema=ANSWERS)
    return frame.sort("kafka_offset").unique("event_id", keep="first", maintain_order=True)


def _hits(
    clicks: pl.DataFrame, answers: pl.DataFrame, acts: Sequence[str], window_ms: int
) -> pl.DataFrame:
    """Every act on a recommended item, beside every answer that it can be put down to."""
    places = answers.with_columns(
        position=pl.col("item_ids").map_elements(
            lambda items: list(range(1, len(items) + 1)), return_dtype=pl.List(pl.Int64)
        )
    ).explode("item_ids", "position")
    acted = clicks.filter(pl.col("event_type").is_in(acts)).select(
        "user_id", "item_id", "ts", "price", "quantity", act_id="event_id"
    )
    later = pl.col("ts") - pl.col("clicked_at")
    return places.join(
        acted, left_on=["user_id", "item_ids"], right_on=["user_id", "item_id"]
    ).filter((later > 0) & (later <= window_ms))


def ctr(
    clicks: pl.DataFrame, answers: pl.DataFrame, by: Sequence[str], window_ms: int
) -> list[Row]:
    shown = answers.filter(pl.col("item_ids").list.len() > 0)
    found = _hits(clicks, shown, ACTS, window_ms)
    if "position" in by:
        shown = shown.with_columns(
            position=pl.col("item_ids").map_elements(
                lambda items: list(range(1, len(items) + 1)), return_dtype=pl.List(pl.Int64)
            )
        ).explode("position")
        clicked_rows = found.unique(["event_id", "position"])
    else:
        clicked_rows = found.unique("event_id")
    rows = []
    for key in shown.select(by).unique().sort(by).iter_rows(named=True) if by else [{}]:
        answered = _where(shown, key).height
        clicked = _where(clicked_rows, key).height
        share = clicked / answered if answered else 0
        rows.append(key | {"answers": answered, "clicked": clicked, "ctr": share})
    return rows


def conversion(clicks: pl.DataFrame, answers: pl.DataFrame, window_ms: int) -> Row:
    shown = answers.filter(pl.col("item_ids").list.len() > 0)
    found = _hits(clicks, shown, ("purchase",), window_ms)
    credited = found.sort("clicked_at").unique("act_id", keep="last", maintain_order=True)
    worth = credited.select(
        (pl.col("price").fill_null(0) * pl.col("quantity").fill_null(1)).sum()
    ).item()
    return {"answers": shown.height, "purchases": credited.height, "revenue": worth}


def funnel(clicks: pl.DataFrame, steps: Sequence[str], window_ms: int) -> list[int]:
    """Shoppers by step."""
    counts = []
    reached: pl.DataFrame | None = None
    for step in steps:
        here = clicks.filter(pl.col("event_type") == step).select("user_id", "ts")
        if reached is None:
            reached = here.with_columns(first=pl.col("ts"))
        else:
            reached = (
                reached.join(here, on="user_id", suffix="_next")
                .filter(
                    (pl.col("ts_next") >= pl.col("ts"))
                    & (pl.col("ts_next") - pl.col("first") <= window_ms)
                )
                .select("user_id", "first", ts="ts_next")
            )
        counts.append(reached["user_id"].n_unique())
    return counts


def retention(clicks: pl.DataFrame) -> list[Row]:
    came = (
        clicks.filter(pl.col("event_type") != "impression")
        .select("user_id", week=pl.from_epoch("ts", time_unit="ms").dt.truncate("1w").dt.date())
        .unique()
    )
    cohorts = came.group_by("user_id").agg(cohort=pl.col("week").min())
    counted = (
        came.join(cohorts, on="user_id")
        .with_columns(n=(pl.col("week") - pl.col("cohort")).dt.total_days() // 7)
        .group_by("cohort", "n")
        .agg(users=pl.len())
        .sort("cohort", "n")
    )
    sizes = dict(cohorts.group_by("cohort").len().iter_rows())
    return [
        {
            "cohort": cohort,
            "week": n,
            "users": users,
            "size": sizes[cohort],
            "retained": users / sizes[cohort],
        }
        for cohort, n, users in counted.iter_rows()
    ]


def sessions(clicks: pl.DataFrame, gap_ms: int) -> Row:
    named = clicks.filter(pl.col("session_id") != "").with_columns(visit="s" + pl.col("session_id"))
    told = (
        clicks.filter(pl.col("session_id") == "")
        .sort("user_id", "ts")
        .with_columns(
            visit="g"
            + (pl.col("ts").diff().over("user_id") > gap_ms)
            .fill_null(value=False)
            .cum_sum()
            .over("user_id")
            .cast(pl.String)
        )
    )
    visits = pl.concat([named, told]).group_by("user_id", "visit").agg(
        events=pl.len(), length=(pl.col("ts").max() - pl.col("ts").min()) / 1000,
        bought=(pl.col("event_type") == "purchase").any(),
    )  # fmt: skip
    return {
        "sessions": visits.height,
        "users": visits["user_id"].n_unique(),
        "clicks": clicks.height,
        "clicks_p50": visits["events"].quantile(0.5, interpolation="linear"),
        "length_s_mean": visits["length"].mean(),
        "length_s_p50": visits["length"].quantile(0.5, interpolation="linear"),
        "bounced": (visits["events"] == 1).mean(),
        "bought": visits["bought"].mean(),
    }


def latency(clicks: pl.DataFrame, answers: pl.DataFrame) -> list[Row]:
    """By minute of Kafka's time of the click."""
    both = answers.join(clicks.select("event_id", "kafka_ms"), on="event_id").with_columns(
        minute=pl.col("kafka_ms") // 60_000 * 60_000, ms=pl.col("scored_at") - pl.col("kafka_ms")
    )
    quantiles = {
        f"ms_p{percent}": pl.col("ms").quantile(percent / 100, interpolation="linear")
        for percent in (50, 95, 99)
    }
    found = both.group_by("minute").agg(answers=pl.len(), ms_max=pl.col("ms").max(), **quantiles)
    return found.sort("minute").to_dicts()


def _where(frame: pl.DataFrame, key: Row) -> pl.DataFrame:
    for name, value in key.items():
        frame = frame.filter(pl.col(name) == value)
    return frame

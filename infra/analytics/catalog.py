"""All named questions, in the order in which help tells them."""

from __future__ import annotations

from typing import Final

from infra.analytics.attribution import CONVERSION, CTR
from infra.analytics.experiment import EXPERIMENT
from infra.analytics.items import COLD_ITEMS, COVERAGE, DIVERSITY, POPULAR
from infra.analytics.journeys import FUNNEL, RETENTION, SESSIONS
from infra.analytics.question import Question
from infra.analytics.service import DEAD_LETTERS, DRILLS, FRESHNESS, LAG, LATENCY

QUESTIONS: Final[dict[str, Question]] = {
    question.name: question
    for question in (
        CTR,
        CONVERSION,
        EXPERIMENT,
        FUNNEL,
        RETENTION,
        SESSIONS,
        LATENCY,
        FRESHNESS,
        COVERAGE,
        DIVERSITY,
        POPULAR,
        COLD_ITEMS,
        DEAD_LETTERS,
        LAG,
        DRILLS,
    )
}

"""What a worker tells Prometheus; names follow the Prometheus conventions."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Batches take from a fraction of a millisecond to a second.
_BATCH_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_AGE_BUCKETS: Final = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_SIZE_BUCKETS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class WorkerMetrics:
    """One worker's metrics, in a registry of their own."""

    def __init__(self, region: str, worker_id: str) -> None:
        self.registry = CollectorRegistry()
        labels = {"region": region, "worker": worker_id}
        names = tuple(labels)

        def counter(name: str, text: str, *extra: str) -> Counter:
            return Counter(f"headrace_{name}", text, (*names, *extra), registry=self.registry)

        def gauge(name: str, text: str, *extra: str) -> Gauge:
            return Gauge(f"headrace_{name}", text, (*names, *extra), registry=self.registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            made = Histogram(
                f"headrace_{name}", text, names, registry=self.registry, buckets=buckets
            )
            return made.labels(**labels)

        self._labels = labels
        self.clicks = counter("clicks_total", "Clicks folded, mirrored ones included.").labels(
            **labels
        )
        self._recommendations = counter(
            "recommendations_total", "Clicks answered, by tier.", "tier"
        )
        self._by_tier: dict[str, Counter] = {}
        self._dead_letters = counter("dead_letters_total", "Records rejected, by reason.", "reason")
        self._failures = counter(
            "recommender_failures_total", "Batches that a recommender failed.", "label"
        )
        self.rebalances = counter("rebalances_total", "Assignments received.").labels(**labels)
        self.commits = counter("commits_total", "Offset commits.").labels(**labels)
        self.batch_size = histogram("batch_clicks", "Records in a batch.", _SIZE_BUCKETS)
        self.batch_seconds = histogram(
            "batch_seconds", "Time to process and hand over a batch.", _BATCH_BUCKETS
        )
        self.click_age = histogram(
            "click_age_seconds",
            "Oldest click of a batch: Kafka's time stamp to the answer.",
            _AGE_BUCKETS,
        )
        self.users = gauge("state_users", "Users in the owned partitions.").labels(**labels)
        self.partitions = gauge("partitions", "Owned partitions.").labels(**labels)
        self.lag = gauge("lag_records", "Records not yet processed, all owned partitions.").labels(
            **labels
        )
        self.healed = counter(
            "healed_users_total", "Windows written again after another worker's late record."
        ).labels(**labels)
        self.restored = counter("restored_records_total", "Changelog records restored.").labels(
            **labels
        )
        self.restore_seconds = gauge("restore_seconds", "Time of the last restore.").labels(
            **labels
        )
        self._model = gauge(
            "model_info", "1 for the recommender in force, by label and tier.", "label", "tier"
        )

    def answered(self, tier: str, count: int) -> None:
        """Count answers of a tier."""
        child = self._by_tier.get(tier)
        if child is None:
            child = self._by_tier[tier] = self._recommendations.labels(**self._labels, tier=tier)
        child.inc(count)

    def rejected(self, reason: str) -> None:
        """Count a rejected record."""
        self._dead_letters.labels(**self._labels, reason=reason).inc()

    def failed(self, label: str) -> None:
        """Count a batch that a recommender could not answer."""
        self._failures.labels(**self._labels, label=label).inc()

    def serving(self, label: str, tier: str) -> None:
        """Say which recommender is the best in force."""
        self._model.clear()
        self._model.labels(**self._labels, label=label, tier=tier).set(1)

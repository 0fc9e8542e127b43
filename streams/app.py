"""Puts a worker together; `faust -A streams.app worker --without-web` works as well.

Nothing happens at import: the attribute `app` is made when it is first asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from mode import Service
from yarl import URL

from models.contract import Recommender
from models.scorer import OnnxScorer
from schemas.codec import Codec
from schemas.errors import HeadraceError, SettingsError
from schemas.registry import codec_from_settings
from schemas.topics import CLICKS, changelog_topic, mirrored_topic
from streams.agents import declare
from streams.emit import Emitter
from streams.ends import EndOffsets
from streams.fetch import Batch, Fetcher
from streams.follow import ModelFollower
from streams.group import BatchTableManager, HeadraceApp
from streams.health import HealthServer
from streams.hop import Hop, HopConfig
from streams.kafka import (
    changelog_producer_config,
    client_config,
    fetch_consumer_config,
    hot_consumer_config,
    worker_producer_config,
)
from streams.metrics import WorkerMetrics
from streams.path import DataPath
from streams.popular import PopularRecommender
from streams.preflight import check_topics
from streams.settings import Settings, load_settings
from streams.state.windows import Windows
from streams.watchdog import Watchdog

log = logging.getLogger(__name__)

STOP_TIMEOUT_S: Final = 5.0
AUDIT_INTERVAL_S: Final = 5.0
# Exit codes of <sysexits.h>: EX_SOFTWARE for a fault of ours, EX_TEMPFAIL for "start me again".
EXIT_FAULT: Final = 70
EXIT_AGAIN: Final = 75


def __getattr__(name: str) -> Any:
    if name == "app":
        settings = load_settings()
        made = build_app(settings.model_copy(update={"partitions": check_topics(settings)}))
        globals()["app"] = made
        return made
    raise AttributeError(name)


def build_app(settings: Settings, codec: Codec | None = None) -> HeadraceApp:
    """A worker's Faust app with its data path, ready to start. Raises `SettingsError`."""
    if not settings.bootstrap:
        raise SettingsError(
            "HEADRACE_BOOTSTRAP is not set: where is Kafka? (host:port, comma-separated)"
        )
    codec = codec or codec_from_settings(settings.registry_url)
    changelog = changelog_topic(settings.group)
    topics = [CLICKS.name, *(mirrored_topic(peer, CLICKS.name) for peer in settings.peers)]
    app = _faust_app(settings)
    app.hot_topics = frozenset(topics)
    app.changelog = changelog
    # Subscribed for the assignment's sake; the records come by `streams.fetch`.
    for topic in topics:
        app.topics.add(app.topic(topic, value_serializer="raw"))
    app.Table("windows", partitions=settings.partitions, help="Newest events of each shopper.")
    batches = declare(app)
    windows = Windows()
    popular = PopularRecommender(windows, time.monotonic)
    hop = Hop(codec, windows, [*_first_model(settings), popular], _hop_config(settings))
    metrics = WorkerMetrics(settings.region, settings.worker_id)
    loop_box: list[asyncio.AbstractEventLoop] = []
    fetcher = Fetcher(
        hot_consumer_config(settings, settings.bootstrap),
        lambda batch: _post(loop_box[0], batches.deliver_batch, batch),
        settings.batch_max,
    )
    end_offsets = EndOffsets(client_config(settings, settings.bootstrap) | {"log_level": 0})
    app.path = DataPath(
        hop,
        Emitter(
            worker_producer_config(settings, settings.bootstrap),
            changelog_producer_config(settings, settings.bootstrap),
            changelog,
        ),
        fetcher,
        end_offsets,
        metrics,
        changelog,
        settings.session_timeout_s,
    )
    app.runner = Runner(app, settings, codec, popular, end_offsets, loop_box)
    return app


def _post(loop: asyncio.AbstractEventLoop, function: Callable[[Batch], None], batch: Batch) -> None:
    loop.call_soon_threadsafe(function, batch)


def _faust_app(settings: Settings) -> HeadraceApp:
    session_s = settings.session_timeout_s
    security = _faust_security(settings)
    return HeadraceApp(
        settings.group,
        broker=[URL(f"kafka://{server.strip()}") for server in settings.bootstrap.split(",")],
        store="memory://",
        web_enabled=False,
        topic_partitions=settings.partitions,
        topic_replication_factor=settings.replication or 1,
        topic_disable_leader=True,
        topic_allow_declare=False,
        TableManager=BatchTableManager,
        consumer_group_instance_id=f"{settings.group}-{settings.region}-{settings.worker_id}",
        consumer_metadata_max_age_ms=5000,
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=session_s,
        broker_heartbeat_interval=min(2.0, session_s / 5),
        broker_request_timeout=max(15.0, session_s + 1),
        broker_rebalance_timeout=60.0,
        broker_max_poll_interval=3600.0,
        producer_acks=-1,
        stream_wait_empty=False,
        stream_recovery_delay=0.0,
        # Its checks of the event path know only Faust's own consumer; ours is `Watchdog`.
        broker_commit_livelock_soft_timeout=31_536_000.0,
        stream_processing_timeout=31_536_000.0,
        **security,
    )


def _faust_security(settings: Settings) -> dict[str, Any]:
    import ssl

    import faust

    if settings.kafka_security == "PLAINTEXT":
        return {}
    context = None
    if settings.kafka_security.endswith("SSL"):
        context = ssl.create_default_context(cafile=settings.kafka_ca_file)
    if settings.kafka_security == "SSL":
        return {"broker_credentials": context}
    return {
        "broker_credentials": faust.SASLCredentials(
            username=settings.kafka_username,
            password=settings.kafka_password.get_secret_value(),
            mechanism=settings.kafka_sasl_mechanism,
            ssl_context=context,
        )
    }


def _hop_config(settings: Settings) -> HopConfig:
    return HopConfig(
        CLICKS.name,
        settings.recommendations_max,
        settings.record_bytes_max,
        int(settings.clock_skew_max_s * 1000),
    )


def _load_model(settings: Settings, folder: Path) -> OnnxScorer:
    return OnnxScorer(folder, threads=settings.scorer_threads, device=settings.device)


def _first_model(settings: Settings) -> list[Recommender]:
    return [_load_model(settings, settings.model_dir)] if settings.model_dir else []


class Runner(Service):  # type: ignore[misc]
    """What runs beside Faust in a worker: fetching, commits, models, health, the watchdog."""

    logger = logging.getLogger("faust.headrace")

    def __init__(
        self,
        app: HeadraceApp,
        settings: Settings,
        codec: Codec,
        popular: PopularRecommender,
        end_offsets: EndOffsets,
        loop_box: list[asyncio.AbstractEventLoop],
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.app = app
        self.settings = settings
        self.web_port = 0
        self._popular = popular
        self._loop_box = loop_box
        metrics = app.path.metrics
        self._health = HealthServer(metrics.registry, self.live, self.ready)
        self._watchdog = Watchdog(
            app.path,
            end_offsets,
            settings.stall_timeout_s,
            self.fail,
        )
        self._follower = ModelFollower(
            fetch_consumer_config(settings, settings.bootstrap),
            codec,
            partial(_load_model, settings),
            self._install_soon,
            lambda _: metrics.failed("announcement"),
        )
        app.on_fail = self.fail

    async def on_start(self) -> None:
        """Start the threads and the health server."""
        self._loop_box.append(asyncio.get_running_loop())
        self.app.path.fetcher.start()
        self._watchdog.start()
        self._follower.start()
        self._serving()
        self.web_port = await self._health.start(self.settings.web_host, self.settings.web_port)
        log.info("health and metrics on http://%s:%d", self.settings.web_host, self.web_port)

    async def on_stop(self) -> None:
        """Stop them; a client that hangs in its close is left to the process's end."""
        self._watchdog.stop()
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, self._follower.stop, STOP_TIMEOUT_S)
        if not await loop.run_in_executor(None, self.app.path.fetcher.stop, STOP_TIMEOUT_S):
            log.warning("the fetching client did not close within %.0f s", STOP_TIMEOUT_S)
        await self._health.stop()

    @Service.task  # type: ignore[untyped-decorator]
    async def _commit_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(self.settings.commit_interval_s)
            path = self.app.path
            if path.serving and not self.should_stop:
                try:
                    await path.commit(self.app.commit_offsets)
                except Exception as error:
                    self.fail(error)

    @Service.task  # type: ignore[untyped-decorator]
    async def _audit_regularly(self) -> None:
        while not self.should_stop:
            await self.sleep(AUDIT_INTERVAL_S)
            if not self.should_stop:
                try:
                    await self.app.path.audit()
                except Exception as error:
                    self.fail(error)

    def live(self) -> str | None:
        """Why this process should be killed, or None. Its loop answered, so only a fault counts."""
        return None if self.app.failure is None else str(self.app.failure)

    def ready(self) -> str | None:
        """Why this worker serves nobody yet, or None."""
        return None if self.app.path.serving else "not serving: waiting for partitions or restoring"

    def _install_soon(self, recommender: Recommender | None) -> None:
        self._loop_box[0].call_soon_threadsafe(self._install, recommender)

    def _install(self, recommender: Recommender | None) -> None:
        """Between two batches, since batches and this run on the same loop."""
        tiers = [self._popular] if recommender is None else [recommender, self._popular]
        self.app.path.hop.swap(tiers)
        self._serving()
        log.info("serving %s", tiers[0].label)

    def _serving(self) -> None:
        best = self.app.path.hop.recommenders[0]
        self.app.path.metrics.serving(best.label, best.tier)

    def fail(self, error: BaseException) -> None:
        """End the process, now: everything that counts is in Kafka, and nothing of the batch in
        hand was committed, so a restart goes on from there. May be called on any thread."""
        if self.app.failure is not None:
            return
        self.app.failure = error
        if isinstance(error, HeadraceError):
            log.critical("the worker ends: %s", error)
        else:
            log.critical("the worker ends on a fault of its own", exc_info=error)
        logging.shutdown()
        os._exit(EXIT_AGAIN if isinstance(error, HeadraceError) else EXIT_FAULT)

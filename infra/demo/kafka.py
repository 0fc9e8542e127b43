"""The Kafka of a run: one that is up already, or the demo's own.

The demo's own region lives in a home of its own, so that simulated clicks never mix with a shop's,
nor with those of another demo: it begins from nothing each time. Its data stays until then.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from infra.cluster import region
from infra.cluster.layout import region_folder
from infra.cluster.state import read_state
from streams.settings import Settings


class DemoKafka:
    """`home`: the demo's own, under that of the settings. `keep`: do not stop what was started."""

    def __init__(self, settings: Settings, home: Path, keep: bool) -> None:
        self._given = settings
        self._ours = settings.model_copy(update={"home": home})
        self._keep = keep
        self._started = False
        self.own = not settings.bootstrap and not _is_up(settings)
        # Whether Kafka is there when the run is over.
        self.stays_up = not self.own or _is_up(self._ours)

    def start(self, report: Callable[[str], None]) -> Settings:
        """Start it, if it is not up; returns the settings with its address. Raises `ClusterError`."""
        if not self.own:
            return self._at(self._given)
        if not self.stays_up:
            self._started = True
            # Also ends the brokers of a demo that was killed.
            region.stop(self._ours, wipe=True)
            region.start(self._ours, report=report)
            self.stays_up = self._keep
        return self._at(self._ours)

    def _at(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"bootstrap": region.bootstrap(settings)})

    def stop(self) -> None:
        """Stop what was started, also when it was not started to the end. Idempotent."""
        if self._started and not self.stays_up:
            region.stop(self._ours)


def _is_up(settings: Settings) -> bool:
    state = read_state(region_folder(settings))
    return state is not None and any(state.living())

"""/livez, /readyz and /metrics of one process, over plain HTTP."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

# A check gives the reason why not, or None for: all is well.
Check = Callable[[], str | None]


class HealthServer:
    """Serves the health of a process on the event loop that starts it."""

    def __init__(self, registry: CollectorRegistry, live: Check, ready: Check) -> None:
        self._registry = registry
        self._live = live
        self._ready = ready
        self._runner: web.AppRunner | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; `port` 0 takes any free one. Returns the port. Raises `OSError` if taken."""
        app = web.Application()
        app.router.add_get("/livez", _answer(self._live))
        app.router.add_get("/readyz", _answer(self._ready))
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Close the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _metrics(self, request: web.Request) -> web.Response:
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        reason = check()
        return web.Response(
            text="ok\n" if reason is None else f"{reason}\n", status=200 if reason is None else 503
        )

    return handle

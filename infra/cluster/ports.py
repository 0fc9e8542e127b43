"""Whether the ports of a region are free, and who has them if not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterable
from typing import Final

import psutil

from infra.cluster.broker import answers
from infra.cluster.layout import Layout
from schemas.errors import ClusterError

# A broker that was just killed holds its ports until its last thread is gone, and shows as nobody.
LEAVING_TIMEOUT_S: Final = 3.0
POLL_S: Final = 0.05


def check_ports(place: Layout, indexes: Iterable[int]) -> None:
    """Raise `ClusterError` naming each port of these brokers that is taken, and by whom."""
    ports = [
        port for index in indexes for port in (place.port(index), place.controller_port(index))
    ]
    deadline = time.monotonic() + LEAVING_TIMEOUT_S
    while taken := {port: _owner(port) for port in ports if not is_free(port)}:
        if any(taken.values()) or time.monotonic() >= deadline:
            named = ", ".join(f"{port}{owner}" for port, owner in taken.items())
            raise ClusterError(
                f"region {place.region} needs port(s) {named}, which are taken: stop what uses them, "
                "or set HEADRACE_KAFKA_PORT to another first port"
            )
        time.sleep(POLL_S)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket() as probe:
        # As Java's servers do: connections in TIME_WAIT do not hold a port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    # Some systems let two sockets bind one port when their addresses differ.
    return not answers(port)


def _owner(port: int) -> str:
    """The process that listens on `port`, for a message; empty where the system does not tell."""
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" (process {connection.pid}, {psutil.Process(connection.pid).name()})"
    except (psutil.Error, OSError):
        pass
    return ""

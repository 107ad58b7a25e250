"""What the figures were taken on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil

from bench.failure import BenchError


def describe(folder: Path) -> str:
    """One line about the machine and about the disk that `folder` is on."""
    memory_gib = psutil.virtual_memory().total / 2**30
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory_gib:.0f} GiB, {_filesystem(folder)}, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load {load:.1f} at the start"
    )


def require_disk(folder: Path) -> None:
    """Refuse a folder in memory, where a durable commit costs nothing.

    Raises:
        BenchError: it is one.
    """
    if _filesystem(folder) in {"tmpfs", "ramfs"}:
        raise BenchError(f"{folder} is kept in memory, so commits to it cost nothing; name one on a disk: --directory")


def _filesystem(folder: Path) -> str:
    mounts = {Path(mount.mountpoint): mount.fstype for mount in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounts[above] for above in (place, *place.parents) if above in mounts), "unknown file system")


def _processor() -> str:
    told = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.partition(":")[2].strip() for line in told if line.startswith("model name"))
    return next(names, platform.machine())

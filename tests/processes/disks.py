"""Small disks, and filling them up. Only root may mount one."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SMALL_DISK = "320m"


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Have a disk of its own in a folder."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0711", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill_disk(ballast: Path, *, leaving: int = 0) -> None:
    """Write until so many bytes are left on the disk."""
    with ballast.open("ab") as file:
        while True:
            disk = os.statvfs(ballast.parent)
            left = disk.f_bavail * disk.f_frsize - leaving
            if left <= 0:
                return
            try:
                file.write(bytes(min(left, 1 << 20)))
                file.flush()
            except OSError:
                return

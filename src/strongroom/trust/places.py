"""Where a value could lie besides the data directory: logs, temporary files, and swap.

What our processes write to and hold open is asked of the operating system (Linux: `/proc`), files that have no name any
more included. What can't be read from here is said, never counted as searched.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from strongroom.trust.searching import Pattern, Search
from strongroom.trust.workbench import Workbench

_OUTPUTS: Final = frozenset({"1", "2"})
"""The descriptors of a process's standard output and error."""
_TEMPORARY: Final = ("/dev/shm", "/var/tmp")  # noqa: S108  looked through, not written to
_SWAPS: Final = Path("/proc/swaps")
_MARGIN_S: Final = 2.0
"""How coarse the times of files may be."""


@dataclass(frozen=True, slots=True)
class Looked:
    """What was looked through, and what couldn't be, for people."""

    searches: Sequence[Search]
    unread: Sequence[str]


def search_around(bench: Workbench, patterns: Sequence[Pattern], since_s: float) -> Looked:
    """Look through what every process of the installation writes to and holds open, temporary files, and swap.

    `since_s` (seconds since the epoch): temporary files that haven't changed since are left out.
    """
    processes = processes_of(bench)
    searches: list[Search] = []
    unread: list[str] = []
    with tempfile.TemporaryFile() as marked:
        # This process has a file open that has no name: a search that doesn't see it sees too little.
        marker = os.urandom(16)
        marked.write(marker)
        marked.flush()
        logs, files = Search("logs", patterns), Search("temporary files", patterns, [marker])
        unread += _search_open_files(bench, processes, logs, files)
        for path in _changed_files(since_s):
            with suppress(FileNotFoundError, PermissionError):
                files.file(path, f"temporary file {path.name}")
    searches += [logs, files]
    swap, why = search_swap(patterns)
    searches += [] if swap is None else [swap]
    return Looked(searches, [*unread, *([why] if why else [])])


def processes_of(bench: Workbench) -> Sequence[psutil.Process]:
    """The processes of an installation: what `serve` started, this one with what it started, and the database's."""
    roots = [os.getpid()]
    with suppress(FileNotFoundError, ValueError, KeyError):
        roots += json.loads((bench.config.data_dir / "serve.json").read_text())["pids"]
    if bench.server is not None:
        with suppress(FileNotFoundError, ValueError):
            roots.append(int((bench.server.data / "postmaster.pid").read_text().split("\n", 1)[0]))
    found: dict[int, psutil.Process] = {}
    for root in roots:
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(root)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return [found[pid] for pid in sorted(found)]


def search_swap(patterns: Sequence[Pattern], table: Path = _SWAPS) -> tuple[Search | None, str]:
    """Look through the machine's swap, as far as this user may read it; and why not, where that is so."""
    if not table.exists():
        return None, "swap can't be found here"
    areas = [Path(line.split()[0]) for line in table.read_text().splitlines()[1:]]
    if not areas:
        return None, "no swap"
    readable = [area for area in areas if os.access(area, os.R_OK)]
    swap = Search("swap", patterns)
    for area in readable:
        swap.file(area, f"swap {area.name}")
    hidden = len(areas) - len(readable)
    return (swap if readable else None), f"{hidden} of {len(areas)} swap areas unreadable" if hidden else ""


def _search_open_files(
    bench: Workbench, processes: Sequence[psutil.Process], logs: Search, files: Search
) -> Iterator[str]:
    """Every file that a process holds open outside the data directory, once. Yields what couldn't be read."""
    seen: set[tuple[int, int]] = set()
    unreadable = elsewhere = 0
    for process in processes:
        folder = Path(f"/proc/{process.pid}/fd")
        try:
            descriptors = sorted(folder.iterdir())
        except FileNotFoundError:
            unreadable += process.is_running()
            continue
        except PermissionError:
            unreadable += 1
            continue
        outputs = set()
        for descriptor in descriptors:
            with suppress(FileNotFoundError, PermissionError):
                found, is_output = descriptor.stat(), descriptor.name in _OUTPUTS
                is_file = stat.S_ISREG(found.st_mode)
                if is_output:
                    outputs.add(is_file or str(descriptor.readlink()) == os.devnull)
                if not is_file or (found.st_dev, found.st_ino) in seen or _is_inside(descriptor, bench):
                    continue
                seen.add((found.st_dev, found.st_ino))
                search = logs if is_output else files
                search.file(descriptor, f"{search.place}, descriptor {descriptor.name} of {process.name()}")
        elsewhere += False in outputs
    if unreadable:
        yield f"open files of {unreadable} of {len(processes)} processes unreadable"
    if elsewhere:
        yield f"output of {elsewhere} of {len(processes)} processes goes to a terminal or a pipe"


def _is_inside(descriptor: Path, bench: Workbench) -> bool:
    """Whether it is a file of the data directory, which is looked through anyway. One without a name is not."""
    target = str(descriptor.readlink())
    return not target.endswith(" (deleted)") and Path(target).is_relative_to(bench.config.data_dir.resolve())


def _changed_files(since_s: float) -> Iterator[Path]:
    """Files directly in the folders for temporary ones."""
    for folder in {tempfile.gettempdir(), *_TEMPORARY}:
        with suppress(FileNotFoundError, PermissionError), os.scandir(folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode) and found.st_mtime >= since_s - _MARGIN_S:
                        yield Path(entry.path)

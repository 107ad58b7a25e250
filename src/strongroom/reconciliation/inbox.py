"""The inbox: a folder for each tenant, into which files from its bank are dropped.

`<files>/inbox/<tenant id>/` is swept for `*.xml`; names that begin with a dot are left alone, so that a file can be
written under such a name and renamed when it is whole. Each file is first claimed by moving it to `taken/`, where a
newer one of the same name can't slip in its place; then it is taken in, in an operation of its own; then it goes to
`done/`, or to `refused/` with a `NAME.reason.json` that says why. A name that is there already gets a number.

A process that dies leaves the file in `taken/`, where the next sweep finds it; a file that had been taken in by then is
recognised and changes nothing. While the database is away, or its contents don't open, or the disk is full, files wait
and are tried again; so does one that can't be read and was written to just now.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec
import structlog

from strongroom.database import Databases, in_operation
from strongroom.kernel.actors import system
from strongroom.kernel.errors import Failure, Refused, StrongroomError, TooLarge, Unavailable
from strongroom.kernel.ids import TenantId, parse_uuid
from strongroom.reconciliation.statements import MAX_REPORT_BYTES, Imported, Report, import_report, read_report

log = structlog.get_logger(__name__)

RECONCILER: Final = system("reconciler")
_ORDER: Final = (b"pain.002", b"camt.054", b"camt.053")
"""Files that wait together are taken in by their kinds: what was refused must be known before a batch is matched."""
_LOOKED_AT: Final = 4_096
_CUT_OFF: Final = ("_MALFORMED", "_NOT_RECOGNISED")
SETTLED_S: Final = 5.0
"""A file that can't be read waits until it hasn't been written to for so long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportResult:
    """What became of one file: it lies at `path` now. `failures` is empty when it was taken in."""

    tenant_id: TenantId
    name: str
    path: Path
    imported: Sequence[Imported] = ()
    failures: Sequence[Failure] = ()


async def import_inbox(databases: Databases, files_dir: Path) -> list[ImportResult]:
    """Take in everything that lies in the inbox, tenant by tenant. Any number of processes may do so side by side.

    Never raises for what a file holds, nor for a tenant or a file that can't be reached now: those wait.
    """
    results: list[ImportResult] = []
    for folder, tenant_id in await asyncio.to_thread(_folders, files_dir / "inbox"):
        try:
            await databases.locate_tenant(tenant_id)
            paths = await asyncio.to_thread(_claim, folder)
        except (StrongroomError, OSError) as error:
            _not_now(folder, error)
            continue
        for path in paths:
            try:
                result = await _take_in(databases, tenant_id, folder, path)
            except Unavailable as error:
                _not_now(folder, error)
                break
            except (StrongroomError, OSError) as error:
                _not_now(folder, error)
                continue
            if result is not None:
                results.append(result)
    return results


def _not_now(folder: Path, error: StrongroomError | OSError) -> None:
    """Files stay where they are; the next sweep tries again."""
    code = error.code if isinstance(error, StrongroomError) else type(error).__name__
    log.warning("inbox.not_now", folder=folder.name, code=code)


async def _take_in(databases: Databases, tenant_id: TenantId, folder: Path, path: Path) -> ImportResult | None:
    """One claimed file; None when somebody else has it, or it isn't whole yet."""
    imported: Sequence[Imported] = ()
    failures: Sequence[Failure] = ()
    try:
        report = await asyncio.to_thread(_read, path)
        begin = partial(databases.operation, RECONCILER, tenant=tenant_id)
        imported = await in_operation(begin, lambda op: import_report(op, report))
    except FileNotFoundError:
        return None
    except (Refused, TooLarge) as error:
        if await asyncio.to_thread(_is_being_written, path, error.code):
            return None
        failures = error.failures
        log.warning("inbox.refused", tenant=str(tenant_id), codes=[failure.code for failure in failures])
    moved = await asyncio.to_thread(_put_away, path, folder, failures, databases.clock.now())
    if moved is None:
        return None
    return ImportResult(tenant_id=tenant_id, name=path.name, path=moved, imported=imported, failures=failures)


def _folders(inbox: Path) -> list[tuple[Path, TenantId]]:
    if not inbox.is_dir():
        return []
    folders = ((folder, parse_uuid(folder.name)) for folder in sorted(inbox.iterdir()) if folder.is_dir())
    return [(folder, TenantId(UUID(int=found.int))) for folder, found in folders if found is not None]


def _claim(folder: Path) -> list[Path]:
    """Move what is new to `taken/`, and list all that lies there in the order in which it is to be read."""
    taken = folder / "taken"
    taken.mkdir(exist_ok=True, mode=0o700)
    for path in folder.glob("*.xml"):
        if not path.name.startswith(".") and path.is_file() and not path.is_symlink():
            with contextlib.suppress(FileNotFoundError):
                _link(path, taken)
                path.unlink()
    return [path for _, path in sorted((_rank(path), path) for path in taken.glob("*.xml"))]


def _rank(path: Path) -> tuple[int, int]:
    """Kind, then age."""
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT)
        kind = next((rank for rank, name in enumerate(_ORDER) if name in start), len(_ORDER))
        return kind, path.stat().st_mtime_ns
    except FileNotFoundError:
        return len(_ORDER), 0


def _read(path: Path) -> Report:
    size = path.stat().st_size
    if size > MAX_REPORT_BYTES:
        raise TooLarge(
            Failure(
                "REPORT_TOO_LARGE",
                "The file has {size} bytes; at most {limit} are read. Ask the bank for smaller ones.",
                {"size": size, "limit": MAX_REPORT_BYTES},
            )
        )
    return read_report(path.read_bytes())


def _is_being_written(path: Path, code: str) -> bool:
    """Whether a file that can't be read may only not be whole yet."""
    if not code.endswith(_CUT_OFF):
        return False
    with contextlib.suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime < SETTLED_S
    return True


def _put_away(path: Path, folder: Path, failures: Sequence[Failure], at: datetime) -> Path | None:
    """Move a file where it belongs, writing down why it was refused; None when somebody else has moved it."""
    target = folder / ("refused" if failures else "done")
    target.mkdir(exist_ok=True, mode=0o700)
    try:
        moved = _link(path, target)
    except FileNotFoundError:
        return None
    if failures:
        reason = {
            "file": moved.name,
            "at": at,
            "errors": [{"errorCode": failure.code, "message": failure.message} for failure in failures],
        }
        moved.with_name(f"{moved.name}.reason.json").write_bytes(msgspec.json.format(msgspec.json.encode(reason)))
    path.unlink(missing_ok=True)
    return moved


def _link(path: Path, folder: Path) -> Path:
    """Give a file a second place in a folder of the same file system, never over another file.

    The first place is given up only after that, so that a file is always somewhere; where that was interrupted, the
    second place is found again. Raises FileNotFoundError when the file isn't in its first place any more.
    """
    for number in itertools.count(1):
        target = folder / (path.name if number == 1 else f"{path.stem}.{number}{path.suffix}")
        try:
            os.link(path, target)
        except FileExistsError:
            if not path.samefile(target):
                continue
        return target
    raise AssertionError("there is always a next number")

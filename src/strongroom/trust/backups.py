"""Base backups of the embedded database, made for a check and gone with it."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from strongroom.database import EmbeddedServer

_MIB: Final = 1 << 20


@contextmanager
def base_backup(server: EmbeddedServer) -> Iterator[Path]:
    """A folder with a backup in `database/data`, as an installation has its database; removed afterwards.

    Raises OSError when there isn't room for two of them.
    """
    place = server.directory / f"prove-{secrets.token_hex(4)}"
    data = place / "database" / "data"
    try:
        _back_up(server, data)
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def files_below(root: Path, left_out: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """Every file below a folder, but for those in folders that are left out."""
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in left_out]
        for name in names:
            path = here / name
            if path.is_file() and not path.is_symlink():
                yield path


def _back_up(server: EmbeddedServer, data: Path) -> None:
    owner = server.data.stat()
    size = sum(path.stat().st_size for path in files_below(server.data))
    free = shutil.disk_usage(server.directory).free
    if free < 2 * size:
        raise OSError(f"a base backup needs {2 * size // _MIB} MiB in {server.directory}; {free // _MIB} MiB are free")
    for folder in (data.parent.parent, data.parent):
        folder.mkdir(mode=0o711)
    data.mkdir(mode=0o700)
    os.chown(data, owner.st_uid, owner.st_gid)
    server.run("pg_basebackup", "-D", str(data), "-c", "fast", "-X", "stream", "--no-sync")

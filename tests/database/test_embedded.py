"""The embedded server after its death: whatever it left behind, it comes up again, and never twice over one folder."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import psycopg
import pytest

from strongroom.database import EmbeddedServer
from strongroom.database.embedded import ORPHANS_END_S
from strongroom.kernel.secret import Secret
from tests.fixtures.platform import public_folder


@pytest.fixture(scope="module")
def common() -> Iterator[EmbeddedServer]:
    with public_folder() as folder:
        made = EmbeddedServer(folder / "database", Secret("a-made-up-password"))
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def server(common: EmbeddedServer) -> Iterator[EmbeddedServer]:
    """Up and running; a test may kill it."""
    common.start()
    yield common
    common.start()


def main_process(server: EmbeddedServer) -> psutil.Process:
    return psutil.Process(int((server.data / "postmaster.pid").read_text().split()[0]))


def backends(server: EmbeddedServer) -> list[psutil.Process]:
    here = str(server.data.resolve())
    return [
        process
        for process in psutil.process_iter(["cwd", "name", "status"])
        if process.info["cwd"] == here and process.info["status"] != psutil.STATUS_ZOMBIE
    ]


def answers(server: EmbeddedServer) -> bool:
    with psycopg.connect(server.url.reveal()) as connection:
        return connection.execute("select 1").fetchone() == (1,)


def test_killed_it_is_started_again(server: EmbeddedServer) -> None:
    killed = main_process(server)
    killed.kill()
    psutil.wait_procs([killed], timeout=10)
    assert not server.alive
    server.start()
    assert server.alive
    assert answers(server)
    assert main_process(server).pid != killed.pid


def test_one_that_is_there_is_left_alone(server: EmbeddedServer) -> None:
    before = main_process(server).pid
    server.start()
    assert main_process(server).pid == before


def test_children_of_a_killed_server_that_do_not_end_are_ended(server: EmbeddedServer) -> None:
    """One is stuck, here because it was stopped; a second server beside it would destroy the data."""
    with psycopg.connect(server.url.reveal()) as connection:
        stuck = psutil.Process(connection.info.backend_pid)
        stuck.suspend()
        main_process(server).kill()
        time.sleep(0.5)
        assert stuck in backends(server)
        began = time.monotonic()
        server.start()
        assert time.monotonic() - began > ORPHANS_END_S  # it was given time to end by itself
    assert not stuck.is_running() or stuck.status() == psutil.STATUS_ZOMBIE
    assert answers(server)


def test_somebody_elses_process_with_the_number_is_not_taken_for_the_server(server: EmbeddedServer) -> None:
    killed = main_process(server)
    killed.kill()
    psutil.wait_procs(backends(server), timeout=10)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        for lock in (server.data / "postmaster.pid", server.socket_dir / ".s.PGSQL.5432.lock"):
            lines = lock.read_text().splitlines(keepends=True)
            lock.write_text("".join([f"{stranger.pid}\n", *lines[1:]]))
        assert not server.alive
        server.start()
        assert answers(server)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_killed_process_that_nobody_has_buried_is_not_alive(server: EmbeddedServer) -> None:
    pid_file = server.data / "postmaster.pid"
    content = pid_file.read_text()
    unburied = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, unburied.pid, os.WEXITED | os.WNOWAIT)
    try:
        pid_file.write_text(f"{unburied.pid}\n" + content.split("\n", 1)[1])
        assert not server.alive
    finally:
        pid_file.write_text(content)
        unburied.wait()
    assert server.alive


def test_stopping_one_that_is_dead_is_no_error(server: EmbeddedServer) -> None:
    main_process(server).kill()
    psutil.wait_procs(backends(server), timeout=10)
    server.stop()
    assert not server.alive


def test_room(server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(server.directory)
    assert server.has_room()
    monkeypatch.setattr("strongroom.database.embedded.RESERVE_BYTES", disk.f_blocks * disk.f_frsize + 1)
    assert not server.has_room()

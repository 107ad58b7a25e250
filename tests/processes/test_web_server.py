"""Processes of the API that die again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

import httpx
import psutil
import pytest

from strongroom.cli.web_server import STEADY_AFTER_S
from tests.fixtures.platform import Server, public_folder
from tests.processes.campaign import left_behind


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server of its own, to be hurt."""
    with public_folder() as folder:
        made = Server(folder, "--processes", "2")
        try:
            made.start()
            yield made
        finally:
            made.stop()
        assert left_behind(made) == []


def main_of(server: Server) -> psutil.Process:
    """The process that starts those that serve."""
    [found] = [child for child in psutil.Process(server.pid).children() if "serve-api" in child.cmdline()]
    return found


def serving(server: Server) -> list[psutil.Process]:
    """Those that serve, the oldest first; beside them stands Python's own helper."""
    found = [child for child in main_of(server).children() if "resource_tracker" not in " ".join(child.cmdline())]
    return sorted(found, key=psutil.Process.create_time)


def wait_for(server: Server, count: int, but: int) -> psutil.Process:
    """The youngest, when so many serve again and it isn't `but`."""
    deadline = time.monotonic() + 60
    while True:
        with suppress(psutil.NoSuchProcess, ValueError):
            found = serving(server)
            if len(found) == count and found[-1].pid != but:
                return found[-1]
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def answers(server: Server, patience_s: float = 0) -> bool:
    """Whether it answers on a new connection, at the latest after so long."""
    deadline = time.monotonic() + patience_s
    while True:
        with suppress(httpx.TransportError), server.http() as http:
            return http.get("/ready").status_code == 200
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)


def test_one_that_dies_again_and_again_leaves_the_others_alone(server: Server) -> None:
    main = main_of(server)
    while min(time.time() - process.create_time() for process in serving(server)) < STEADY_AFTER_S:
        time.sleep(0.1)
    steady, hurt = serving(server)
    for _ in range(3):
        hurt.kill()
        hurt = wait_for(server, 2, but=hurt.pid)
    assert main.is_running()
    assert serving(server)[0] == steady
    assert answers(server, 10)
    assert server.log.count("serve.process_ended") == 3
    assert "serve.part_ended" not in server.log


def test_when_all_die_twice_all_are_started_anew(server: Server) -> None:
    """None of them is believed to work then; the supervisor says so and starts the part again."""
    main = main_of(server)
    deadline = time.monotonic() + 60
    while main.is_running() and main.status() != psutil.STATUS_ZOMBIE:
        with suppress(psutil.NoSuchProcess, ValueError):
            for process in serving(server):
                process.kill()
        assert time.monotonic() < deadline, server.log
        time.sleep(0.2)
    deadline = time.monotonic() + 60
    while "serve.part_ended" not in server.log:
        assert time.monotonic() < deadline, server.log
        time.sleep(0.1)
    assert answers(server, 60)
    assert main_of(server) != main

"""`strongroom prove`, as people and machines call it."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from strongroom.assembly import Installation
from strongroom.cli.prove import prove_app, table_of
from strongroom.cli.workbenches import find_served
from strongroom.trust import Colour, Workbench, last_verdicts
from tests.trust.test_promises import IDS

FIELDS = ["id", "promise", "verdict", "figure", "checked_at"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "strongroom.cli", "prove", *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("STRONGROOM_")}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=variables)


async def test_as_data_and_by_exit_status(bench: Workbench) -> None:
    """One promise is broken, the other kept; the parts that are needed are started for the time being."""
    data_dir = str(bench.config.data_dir)
    async with bench.admin("eu") as connection:
        await connection.execute("alter table orders no force row level security")
        try:
            broken = run("--json", "--only", "ENC-1", "--only", "enc-5", "--only", "ENC-6", "--data-dir", data_dir)
        finally:
            await connection.execute("alter table orders force row level security")
    assert broken.returncode == 1, broken.stderr
    answered = json.loads(broken.stdout)
    assert [list(entry) for entry in answered] == [FIELDS] * 3
    assert [(entry["id"], entry["verdict"]) for entry in answered] == [
        ("ENC-1", "green"),
        ("ENC-5", "red"),
        ("ENC-6", "unbuilt"),
    ]
    assert answered[2]["checked_at"] is None
    assert answered[1]["figure"].startswith("eu.orders does not force row-level security")
    assert datetime.fromisoformat(answered[1]["checked_at"]).tzinfo is not None
    kept = {verdict.id: verdict for verdict in await last_verdicts(bench.databases, ["ENC-5"])}
    assert kept["ENC-5"].figure == answered[1]["figure"]

    mended = run("--only", "ENC-5", "--data-dir", data_dir)
    assert mended.returncode == 0, mended.stderr
    assert "ENC-5" in mended.stdout
    assert "1 green, 0 red, 0 unbuilt" in mended.stdout


def test_where_nothing_is_nothing_is_made(tmp_path: Path) -> None:
    answered = run("--data-dir", str(tmp_path / "typo"))
    assert answered.returncode == 1
    assert "INSTALLATION_NOT_FOUND" in answered.stderr
    assert not (tmp_path / "typo").exists()


async def test_an_app_that_is_served_can_be_proven_from_inside(bench: Workbench) -> None:
    """The way the demo does it: everything is up already."""
    app = Installation(bench.config).app(connections=2)
    await app.open()
    try:
        told: list[str] = []
        verdicts = await prove_app(app, ["ENC-1"], lambda promise, verdict: told.append(promise.id))
    finally:
        await app.close()
    assert [(verdict.id, verdict.colour) for verdict in verdicts] == [("ENC-1", Colour.GREEN)]
    assert told == ["ENC-1", "ENC-1"]


async def test_the_table_has_a_line_for_every_promise(bench: Workbench) -> None:
    verdicts = await last_verdicts(bench.databases, [])
    output = io.StringIO()
    Console(width=160, file=output).print(table_of(verdicts, datetime.now(UTC)))
    lines = [line.rstrip() for line in output.getvalue().splitlines()]
    assert [line.split()[0] for line in lines if line[:1].isupper()][1:] == IDS
    assert re.fullmatch(r"\d+ green, \d+ red, \d+ unbuilt", lines[-1])


def test_a_served_installation_is_found_by_its_file(bench: Workbench) -> None:
    installation, file = Installation(bench.config), bench.config.data_dir / "serve.json"
    assert find_served(installation) is None
    told = {
        "url": "https://127.0.0.1:9443", "simulator": "https://127.0.0.1:9444", "cards": "https://127.0.0.1:9445",
        "cards_inner": "https://127.0.0.1:9446", "pids": [os.getpid()],
    }  # fmt: skip
    try:
        file.write_text(json.dumps(told))
        served = find_served(installation)
        assert served is not None
        assert (served.config.host, served.config.port, served.config.simulator_port) == ("127.0.0.1", 9443, 9444)
        assert (served.config.cards_port, served.config.cards_inner_port) == (9445, 9446)
        file.write_text(json.dumps(told | {"simulator": None}))
        served = find_served(installation)
        assert served is not None
        assert served.config.simulator_port == bench.config.simulator_port
        for stale in (told | {"pids": [os.getpid(), 2**22 + 1]}, {"url": "https://x"}, "nonsense"):
            file.write_text(json.dumps(stale))
            assert find_served(installation) is None
        file.write_text('{"url": "htt')
        assert find_served(installation) is None
    finally:
        file.unlink()

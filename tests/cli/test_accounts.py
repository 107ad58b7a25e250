"""`strongroom accounts create`, with nothing running beside it."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.commands import run_command
from tests.fixtures.platform import public_folder


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder / "installation"


def create(data_dir: Path, *options: str) -> tuple[int, str, str]:
    done = run_command("accounts", "create", "--data-dir", str(data_dir), *options)
    return done.returncode, done.stdout, done.stderr


def test_it_opens_an_account_and_leaves_no_database_running(data_dir: Path) -> None:
    status, out, err = create(data_dir, "--name", "Alpine Mutual", "--region", "ch", "--json")
    assert (status, err) == (0, "")
    opened = json.loads(out)
    assert list(opened) == ["accountId", "region", "publicKey", "privateKey", "roles"]
    assert uuid.UUID(opened["accountId"])
    assert opened["region"] == "ch"
    assert opened["roles"] == ["account-admin"]
    assert len(base64.b64decode(opened["privateKey"], validate=True)) == 32
    assert not (data_dir / "database" / "data" / "postmaster.pid").exists()


def test_it_prints_for_people(data_dir: Path) -> None:
    status, out, err = create(data_dir, "--name", "Alpine Mutual")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["Account", "Public", "Private"]
    assert "region eu" in out


@pytest.mark.parametrize(
    ("options", "codes"),
    [
        (("--name", " "), ["COMPANY_NAME_IS_REQUIRED"]),
        (("--name", "x" * 101, "--region", "us"), ["COMPANY_NAME_LENGTH_OUT_OF_RANGE", "REGION_NOT_RECOGNISED"]),
    ],
)
def test_what_is_wrong_is_said_a_line_each(data_dir: Path, options: tuple[str, ...], codes: list[str]) -> None:
    status, out, err = create(data_dir, *options)
    assert (status, out) == (1, "")
    assert [line.split(":")[0] for line in err.splitlines()] == codes


def test_a_database_of_ones_own_that_is_away_is_one_clear_line(data_dir: Path) -> None:
    url = "postgresql://postgres:secret-word@127.0.0.1:1/postgres"
    status, out, err = create(data_dir.with_name("remote"), "--name", "A", "--database", url)
    assert (status, out) == (1, "")
    assert err.startswith("DATABASE_UNAVAILABLE")
    assert "Traceback" not in err
    assert "secret-word" not in err

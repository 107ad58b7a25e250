"""`strongroom invite`, with nothing running beside it."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.platform import public_folder, run_command


@pytest.fixture(scope="module")
def opened() -> Iterator[tuple[Path, str]]:
    """An installation's folder, and an account in it."""
    with public_folder() as folder:
        data_dir = folder / "installation"
        done = run_command("accounts", "create", "--data-dir", str(data_dir), "--name", "Alpine Mutual", "--json")
        yield data_dir, json.loads(done.stdout)["accountId"]


def invite(opened: tuple[Path, str], *options: str) -> tuple[int, str, str]:
    data_dir, account = opened
    done = run_command("invite", "--data-dir", str(data_dir), "--account", account, *options)
    return done.returncode, done.stdout, done.stderr


def test_it_prints_a_link_once(opened: tuple[Path, str]) -> None:
    who = ("--email", "Ada@Example.com", "--role", "account-admin")
    status, out, err = invite(opened, *who, "--json")
    assert (status, err) == (0, "")
    told = json.loads(out)
    assert uuid.UUID(told["userId"])
    assert (told["emailAddress"], told["roles"], told["invitationStatus"]) == (
        "ada@example.com",
        ["account-admin"],
        "INVITED",
    )
    assert re.fullmatch(r"https://localhost:8443/portal/invitation/[\w-]{123}", told["link"])
    status, out, err = invite(opened, *who)
    assert (status, out, err.split(":")[0]) == (1, "", "USER_ALREADY_EXISTS")


def test_it_prints_for_people(opened: tuple[Path, str]) -> None:
    status, out, err = invite(
        opened, "--email", "b@example.com", "--role", "account-tenant-read", "--url", "https://pay.example.com/"
    )
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["User", "Until", "Link"]
    assert "https://pay.example.com/portal/invitation/" in out


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--email", "nobody", "--role", "account-admin"), "EMAIL_ADDRESS_IS_INVALID"),
        (("--email", "c@example.com", "--role", "tenant-admin"), "ROLES_NOT_RECOGNISED"),
        (("--email", "c@example.com", "--role", "tenant-admin", "--tenant", "x"), "TENANT_ID_IS_INVALID"),
    ],
)
def test_what_is_wrong_is_said(opened: tuple[Path, str], options: tuple[str, ...], code: str) -> None:
    status, out, err = invite(opened, *options)
    assert (status, out, err.split(":")[0]) == (1, "", code)

"""`strongroom access explain`: which rule lets somebody, or stops them."""

from __future__ import annotations

import json

import pytest

from strongroom.assembly import Installation
from tests.fixtures.platform import Client, Platform, run_command


@pytest.mark.parametrize(
    ("permission", "status", "words"),
    [
        ("apps:read", 0, "The role tenant-app-read includes apps:read."),
        (
            "apps:write",
            1,
            "This needs the permission apps:write, which the roles held here (tenant-app-read) don't include.",
        ),
    ],
)
async def test_why(
    installation: Installation, tenant: Client, platform: Platform, permission: str, status: int, words: str
) -> None:
    key = await tenant.new_key("tenant-app-read")
    whose = (
        "--tenant",
        str(tenant.tenant_id),
        "--key",
        key.public_key,
        "--data-dir",
        str(installation.config.data_dir),
    )
    told = run_command("access", "explain", permission, *whose)
    assert (told.returncode, told.stdout) == (status, words + "\n"), told.stderr
    found = json.loads(run_command("access", "explain", permission, *whose, "--json").stdout)
    assert (found["allowed"], found["sentence"]) == (status == 0, words)


def test_what_isnt_asked_rightly(installation: Installation) -> None:
    folder = ("--data-dir", str(installation.config.data_dir))
    nobody = "00000000-0000-7000-8000-000000000000"
    for arguments in (
        ("apps:read", *folder),
        ("apps:read", "--tenant", nobody, *folder),
        ("apps:eat", "--tenant", nobody, "--key", nobody, *folder),
    ):
        assert run_command("access", "explain", *arguments).returncode == 2

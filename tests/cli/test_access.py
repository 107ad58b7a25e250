"""`strongroom access explain`: which rule lets somebody, or stops them."""

from __future__ import annotations

import json

from strongroom.assembly import Installation
from tests.fixtures.platform import Client, run_command


def explain(installation: Installation, *arguments: str) -> tuple[int, str]:
    done = run_command("access", "explain", *arguments, "--data-dir", str(installation.config.data_dir))
    return done.returncode, done.stdout


async def test_why(installation: Installation, tenant: Client) -> None:
    key = await tenant.new_key("tenant-app-read")
    whose = ("--tenant", str(tenant.tenant_id), "--key", key.public_key)
    assert explain(installation, "apps:read", *whose) == (0, "The role tenant-app-read includes apps:read.\n")
    status, told = explain(installation, "apps:write", *whose, "--json")
    found = json.loads(told)
    assert (status, found["allowed"], found["code"]) == (1, False, "FORBIDDEN")
    assert "apps:write" in found["sentence"]
    assert "tenant-app-read" in found["sentence"]


def test_what_isnt_asked_rightly(installation: Installation) -> None:
    nobody = "00000000-0000-7000-8000-000000000000"
    for arguments in (
        ("apps:read",),
        ("apps:read", "--tenant", nobody),
        ("apps:eat", "--tenant", nobody, "--key", nobody),
    ):
        assert explain(installation, *arguments)[0] == 2

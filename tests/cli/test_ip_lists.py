"""`strongroom ip-lists`: seeing lists, and the way back in for those who shut themselves out."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from strongroom.assembly import Installation
from tests.api.paying import refusal
from tests.api.test_ip_lists import HERE, OFFICE, PATHS, THERE, coming_from, listed
from tests.fixtures.platform import Client, Platform, run_command


def run(installation: Installation, *arguments: str) -> tuple[int, str, str]:
    done = run_command("ip-lists", *arguments, "--data-dir", str(installation.config.data_dir))
    return done.returncode, done.stdout, done.stderr


async def test_the_operator_lets_a_tenant_back_in(
    installation: Installation, tenant: Client, platform: Platform
) -> None:
    assert (await tenant.sign_in()).status_code == 201
    here, there = (coming_from(tenant, platform, address) for address in (HERE, THERE))
    assert (await here.put(PATHS["tenant"], listed(OFFICE))).status_code == 204
    assert refusal(await there.get("/v1/tenant")) == (403, ["ADDRESS_NOT_ALLOWED"])
    whose = ("--tenant", str(tenant.tenant_id))

    status, out, _ = run(installation, "show", *whose, "--json")
    rule = {"name": "Office Graz", "first": "198.51.100.0", "last": "198.51.100.15", "interfaces": ["api", "portal"]}
    assert (status, json.loads(out)) == (0, {"enabled": True, "rules": [rule]})
    assert run(installation, "off", *whose)[:2] == (0, "Off: any address will do.\n")

    body = (await there.get(PATHS["tenant"])).json()
    assert (body["enabled"], len(body["rules"])) == (False, 1), "its rules are kept"
    status, out, _ = run(installation, "show", *whose)
    assert status == 0
    assert "Office Graz" in out


@pytest.mark.parametrize("whose", [(), ("--account", str(uuid4()), "--tenant", str(uuid4()))])
def test_one_of_the_two_is_named(installation: Installation, whose: tuple[str, ...]) -> None:
    status, out, err = run(installation, "show", *whose)
    assert (status, out) == (2, "")
    assert "--account" in err


def test_nobody_s_list(installation: Installation) -> None:
    status, _, err = run(installation, "off", "--tenant", str(uuid4()))
    assert (status, err.split(":")[0]) == (1, "TENANT_NOT_FOUND")

"""ACC-4: whoever acts can do what their roles are meant to allow, nothing else, and is told why.

What built-in roles are meant to allow is in a file of its own (`roles.csv`), which nothing but this check and the tests
reads: should a policy say more, or a route ask for less, the two disagree.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any, Final

from strongroom.trust.client import Caller, codes
from strongroom.trust.furnishing import make_holder
from strongroom.trust.routes import path_of
from strongroom.trust.stage import Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Endpoint, Level, Workbench

_LEVELS: Final[tuple[Level, Level]] = ("account", "tenant")
_ROLES: Final = "/v1/account/roles"
_HARMLESS: Final = "alerts:read"
"""What a role is given that is to hold something, and no more."""


async def check_privileges(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    table = read_table()
    async with stage(bench) as scene:
        for endpoint in bench.endpoints:
            if endpoint.level != "public":
                known = endpoint.permission in table
                findings.expect(known, f"{endpoint} declares no permission that there is")
        cells = 0
        for level in _LEVELS:
            cells += await _check_roles(findings, bench, scene, level, table)
        await _check_own_roles(findings, scene)
    return findings.figure(
        f"{len(table[_HARMLESS])} roles asked for all of {len(table)} permissions: {cells} cells as the matrix says; "
        "roles of accounts' own change and end at once, what is denied wins, nobody gives more than they have; every "
        "answer is explained"
    )


def read_table() -> Mapping[str, Mapping[str, bool]]:
    """Permission → role → whether it is meant to hold it."""
    text = (files("strongroom.trust") / "roles.csv").read_text("utf-8")
    rows = csv.DictReader(text.splitlines())
    return {row.pop("permission"): {role: cell == "yes" for role, cell in row.items()} for row in rows}


async def _check_roles(
    findings: Findings, bench: Workbench, scene: Stage, level: Level, table: Mapping[str, Mapping[str, bool]]
) -> int:
    """Every role of a level, at one route for each permission."""
    routes: dict[str, Endpoint] = {}
    for endpoint in sorted(bench.endpoints, key=_harm):
        if endpoint.level == level and endpoint.permission in table:
            routes.setdefault(endpoint.permission, endpoint)
    admin = await (scene.account_caller(scene.here) if level == "account" else scene.caller(scene.here))
    cells = 0
    for role in table[_HARMLESS]:
        if not role.startswith(f"{level}-"):
            continue
        caller = await make_holder(scene, admin, [role])
        for permission, endpoint in routes.items():
            meant = table[permission][role]
            # Nothing is named that there is: what is let through comes to nothing.
            path = path_of(endpoint, tenantId=str(scene.here.tenant_id))
            answer = await caller.send(endpoint.method, path)
            served = answer.status != 403
            findings.expect(served == meant, f"{endpoint} answers {answer.status} to the role {role}")
            cells += 1
        held = {permission: row[role] for permission, row in table.items()}
        await _check_explanation(findings, admin, caller, role, held)
    return cells


def _harm(endpoint: Endpoint) -> tuple[bool, bool]:
    """Reading comes first, then what is about something by its name, which there isn't."""
    return endpoint.method != "GET", "{" not in endpoint.path.replace("{tenantId}", "")


async def _check_explanation(
    findings: Findings, admin: Caller, holder: Caller, role: str, held: Mapping[str, bool]
) -> None:
    """One thing that the role allows, and one that it doesn't."""
    level = "account" if holder.key.tenant_id is None else "tenant"
    for wanted in (True, False):
        permission = next((name for name, is_held in held.items() if is_held is wanted), None)
        if permission is None:
            continue
        asked = {"permission": permission, "publicKey": str(holder.key.public_key)}
        told = await admin.done("POST", f"/v1/{level}/explain", asked)
        right = told["allowed"] is wanted and role in told["sentence"] and permission in told["sentence"]
        findings.expect(right, f"of {permission} and the role {role} is told: {told['sentence']}")


async def _check_own_roles(findings: Findings, scene: Stage) -> None:
    """A role of the account's own, from its making to its end."""
    account, admin = await scene.account_caller(scene.here), await scene.caller(scene.here)
    await account.done("POST", _ROLES, _role("prove", [_HARMLESS]))
    await account.done("POST", _ROLES, _role("prove-never", [], denied=[_HARMLESS]))
    holder = await make_holder(scene, admin, ["custom:prove"])
    both = await make_holder(scene, admin, ["tenant-management", "custom:prove-never"])
    await _expect(findings, holder, "/v1/alerts", 200, "a role of the account's own")
    await _expect(findings, holder, "/v1/tenant/keys", 403, "a role that doesn't include it")
    await _expect(findings, both, "/v1/alerts", 403, "a role that allows it beside one that denies it")
    elsewhere = _role("prove", [_HARMLESS], conditions={"tenants": [str(scene.abroad.tenant_id)]})
    await account.done("PUT", f"{_ROLES}/prove", elsewhere)
    await _expect(findings, holder, "/v1/alerts", 403, "a role that was bound to another tenant meanwhile")
    await account.done("PUT", f"{_ROLES}/prove", _role("prove", [_HARMLESS, "tenant-keys:manage"]))
    await _expect(findings, holder, "/v1/tenant/keys", 200, "a role that includes it since a moment ago")
    higher = await holder.send("POST", "/v1/tenant/keys", {"roles": ["tenant-admin"]})
    findings.expect(higher.status == 403, f"who may make keys makes themselves an admin: {higher.status}")
    await account.done("DELETE", f"{_ROLES}/prove")
    await _expect(findings, holder, "/v1/alerts", 403, "a role that has ended")


async def _expect(findings: Findings, caller: Caller, path: str, status: int, what: str) -> None:
    answer = await caller.send("GET", path)
    findings.expect(answer.status == status, f"GET {path} answers {answer.status} {codes(answer)} to {what}")


def _role(name: str, permissions: Sequence[str], **more: Any) -> Mapping[str, Any]:
    return {"name": name, "level": "tenant", "permissions": permissions, **more}

"""ACC-3: whoever comes from an address that isn't on the IP list gets no token, and nothing for one they have."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from strongroom.identity.ip_lists import set_ip_rules
from strongroom.kernel.networks import Networks, parse_address, parse_range
from strongroom.outbound import Answer
from strongroom.trust.client import SIGN_IN, Caller, Key, codes
from strongroom.trust.routes import path_of
from strongroom.trust.stage import PROVER, Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Level, Workbench

ELSEWHERE: Final = ("203.0.113.0", "203.0.113.255")
"""Addresses that nobody has (RFC 5737)."""
_WRONG: Final = "ADDRESS_NOT_ALLOWED"
_LOOPBACK: Final = ("127.0.0.0/8", "::1/128")
_LEVELS: Final[tuple[Level, Level]] = ("account", "tenant")


async def check_addresses(bench: Workbench) -> Figure:
    """See the module."""
    findings, refused = Findings(), 0
    async with stage(bench) as scene:
        for level in _LEVELS:
            refused += await _check_level(findings, bench, scene, level)
    believes = "as their proxies say" if _behind_proxy(bench) else "and spoofed headers change nothing"
    return findings.figure(
        f"{refused} requests with good tokens and 4 signatures from outside the lists of an account and a tenant "
        f"refused, {believes}; listed addresses and other tenants go on; nobody shuts themselves out by mistake"
    )


async def _check_level(findings: Findings, bench: Workbench, scene: Stage, level: Level) -> int:
    """Set lists for one level of the first seat; the number of requests that were refused as they should."""
    key = scene.here.account_key if level == "account" else scene.here.key
    caller = await scene.client.caller(key)
    path = f"/v1/{level}/ip-whitelist"
    shut_out = await caller.send("PUT", path, _list(_range(*ELSEWHERE)))
    findings.expect(
        "WOULD_LOCK_YOU_OUT" in codes(shut_out), f"PUT {path} lets its author shut themselves out: {shut_out.status}"
    )
    listed = await caller.send("PUT", path, _list(*(_network(text) for text in _LOOPBACK)))
    works = await caller.send("GET", path)
    findings.expect(
        listed.status == 204 and works.status == 200, f"GET {path} answers {works.status} to a listed address"
    )
    async with _forced(bench, scene, level, caller, path):
        refused = await _check_routes(findings, bench, caller, level)
        await _check_signing_in(findings, bench, scene, key)
        # Somebody else's list is nobody else's business.
        for other in (scene.other.account_key, scene.other.key):
            answer = await (await scene.client.caller(other)).send("GET", f"/v1/{_level_of(other)}/ip-whitelist")
            findings.expect(answer.status == 200, f"the list of one {level} refuses another's: {answer.status}")
    back = await caller.send("GET", path)
    findings.expect(back.status == 200, f"GET {path} answers {back.status} after the list was switched off")
    return refused


@asynccontextmanager
async def _forced(bench: Workbench, scene: Stage, level: Level, caller: Caller, path: str) -> AsyncIterator[None]:
    """The list names other addresses than ours within the block; its author insists."""
    await caller.done("PUT", f"{path}?force=true", _list(_range(*ELSEWHERE)))
    try:
        yield
    finally:
        tenant = scene.here.tenant_id if level == "tenant" else None
        async with bench.databases.operation(PROVER, account=scene.here.account_id, tenant=tenant) as op:
            await set_ip_rules(op, bench.databases, is_enabled=False, rules=(), forced=True)


async def _check_routes(findings: Findings, bench: Workbench, caller: Caller, level: Level) -> int:
    """Every route of the level, with a good token, from where it may not come."""
    refused = 0
    for endpoint in bench.endpoints:
        if endpoint.level != level:
            continue
        where = path_of(endpoint)  # names nothing that there is: should it be served, nothing comes to harm
        for headers in _ways_to_say(bench):
            answer = await caller.send(endpoint.method, where, **headers)
            right = _is_refused(answer)
            refused += right
            said = ", with X-Forwarded-For forged" if headers else ""
            findings.expect(right, f"{endpoint} answers {answer.status} to an address that isn't listed{said}")
    return refused


async def _check_signing_in(findings: Findings, bench: Workbench, scene: Stage, key: Key) -> None:
    for headers in _ways_to_say(bench):
        forged = {name.replace("_", "-"): value for name, value in headers.items()}
        signed = {"authorization": scene.client.authorization(key), **forged}
        answer = await scene.client.send("POST", SIGN_IN, headers=signed)
        findings.expect(_is_refused(answer), f"sign-in answers {answer.status} to an address that isn't listed")


def _ways_to_say(bench: Workbench) -> tuple[Mapping[str, str], ...]:
    """Headers to come with: none, and a forged one where no proxy of ours would have written it."""
    return ({},) if _behind_proxy(bench) else ({}, {"x_forwarded_for": ELSEWHERE[0]})


def _is_refused(answer: Answer) -> bool:
    return answer.status == 403 and codes(answer) == _WRONG


def _level_of(key: Key) -> Level:
    return "account" if key.tenant_id is None else "tenant"


def _behind_proxy(bench: Workbench) -> bool:
    """Whether this installation believes what its own machine forwards, as behind a proxy that runs beside it."""
    trusted = Networks(map(parse_range, bench.config.trusted_proxies))
    address = parse_address(bench.api.host) or parse_address("127.0.0.1")
    return address is not None and address in trusted


def _list(*rules: Mapping[str, str]) -> dict[str, Any]:
    return {"enabled": True, "rules": list(rules)}


def _range(first: str, last: str) -> dict[str, str]:
    return {"name": "prove", "ipV4Start": first, "ipV4End": last}


def _network(text: str) -> dict[str, str]:
    return {"name": "prove", "cidr": text}

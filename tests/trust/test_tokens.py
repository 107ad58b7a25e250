"""ACC-6 turns red for every credential that opens what it shouldn't."""

from __future__ import annotations

import dataclasses

import pytest

from strongroom.api import Access
from strongroom.api.table import ROUTES
from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.identity import Admission, PublicKey
from strongroom.identity.assertions import Assertion
from strongroom.trust import Workbench
from strongroom.trust.checks.oauth_tokens import check_oauth
from strongroom.trust.checks.tokens import OPEN, SIGNED, check_tokens
from strongroom.trust.stage import stage
from strongroom.trust.verdicts import Findings
from tests.trust.breaking import LateInstallation, clear_keyring

FORGETFUL = """
    create function forget() returns trigger language plpgsql as $$ begin delete from nonces; return null; end $$;
    create trigger forget after insert on nonces for each statement execute function forget();
    grant delete on nonces to strongroom_app
"""


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_tokens(bench)
    assert figure.breaches == ()
    closed = len(ROUTES) - len(OPEN)
    assert figure.text.startswith(f"{closed} of {len(ROUTES)} routes closed to strangers, 9 kinds of bad credential")


def test_the_exceptions_are_routes_that_there_are() -> None:
    assert {f"{route.method} {route.path}" for route in ROUTES if route.access is Access.PUBLIC} == OPEN | SIGNED


async def test_a_route_made_public_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = [
        dataclasses.replace(route, access=Access.PUBLIC, permission=None) if is_catalogue(route.path) else route
        for route in ROUTES
    ]
    for module in ("strongroom.assembly", "strongroom.cli.workbenches"):
        monkeypatch.setattr(f"{module}.ROUTES", opened)
    async with served_here(Installation(bench.config)) as open_house:
        figure = await check_tokens(open_house)
    assert any(is_about_the_catalogue(breach) and "without a token" in breach for breach in figure.breaches)
    assert all(is_about_the_catalogue(breach) for breach in figure.breaches)


async def test_a_reader_that_takes_expired_tokens_is_red(bench: Workbench) -> None:
    async with served_here(LateInstallation(bench.config)) as late:
        figure = await check_tokens(late)
    assert "GET /v1/tenant answers 200 to a token that is expired" in figure.breaches
    assert {breach.rpartition(" ")[2] for breach in figure.breaches} == {"expired"}


async def test_a_nonce_that_is_forgotten_is_red(bench: Workbench) -> None:
    async with bench.admin("eu") as connection:
        await connection.execute(FORGETFUL.encode())
        try:
            figure = await check_tokens(bench)
        finally:
            await connection.execute("drop trigger forget on nonces; drop function forget")
    assert set(figure.breaches) == {
        "sign-in answers 201 to a signature used before",
        "/oauth/token answers 200 to an assertion that is used before",
        "GET /v1/tenant answers 200 to a bound token with a proof used before",
    }


async def test_a_key_that_lives_on_after_its_deletion_is_red(bench: Workbench) -> None:
    async with bench.admin("eu") as connection:
        await connection.execute(
            "create function keep() returns trigger language plpgsql as "
            "$$ begin new.deleted_at := null; return new; end $$"
        )
        await connection.execute("create trigger keep before update on api_keys for each row execute function keep()")
        try:
            figure = await check_tokens(bench)
        finally:
            await connection.execute("drop trigger keep on api_keys; drop function keep")
    assert "GET /v1/tenant answers 200 to the token of a deleted key" in figure.breaches


async def test_a_private_half_in_clear_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.assembly.Keyring", clear_keyring("api_keys.sealed"))
    async with served_here(Installation(bench.config)) as unsealed:
        figure = await check_tokens(unsealed)
    assert figure.breaches == ("found: a private half, as it is, in table eu.api_keys",)


async def breaches_of(bench: Workbench) -> set[str]:
    """What is wrong with the ways in of OAuth clients alone."""
    findings = Findings()
    async with stage(bench) as scene:
        await check_oauth(findings, bench, scene)
    return set(findings.breaches)


async def broken(bench: Workbench) -> set[str]:
    """The same, of what was patched before."""
    async with served_here(Installation(bench.config)) as served:
        return await breaches_of(served)


async def test_assertions_taken_at_any_time_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Assertion, "check_time", lambda *_: None)
    said = "/oauth/token answers 200 to an assertion that is {}"
    assert await broken(bench) == {said.format("expired"), said.format("good for years")}


async def test_assertions_of_any_key_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PublicKey, "has_signed", lambda *_: True)
    said = "/oauth/token answers 200 to an assertion that is {}"
    assert {said.format("damaged"), said.format("of another key")} <= await broken(bench)


async def test_bound_tokens_without_proof_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wave_through(*_: object) -> None:
        return

    monkeypatch.setattr(Admission, "_check_proof", wave_through)
    breaches = await broken(bench)
    assert "GET /v1/tenant answers 200 to a bound token with another's proof" in breaches
    assert "GET /v1/tenant answers 200 to a bound token sent as if it weren't" in breaches


async def test_scopes_that_confine_nothing_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.access.decision.is_within_scopes", lambda *_: True)
    assert await broken(bench) == {"GET /v1/tenant/keys answers 200 to a token that is confined to others"}


async def test_revoked_tokens_that_live_on_are_red(bench: Workbench) -> None:
    async with bench.admin("eu") as connection:
        await connection.execute(
            "create function forget() returns trigger language plpgsql as "
            "$$ begin delete from revoked_tokens; return null; end $$"
        )
        await connection.execute(
            "create trigger forget after insert on revoked_tokens for each statement execute function forget()"
        )
        try:
            breaches = await breaches_of(bench)
        finally:
            await connection.execute("drop trigger forget on revoked_tokens; drop function forget")
    assert "GET /v1/tenant answers 200 to a revoked token" in breaches
    assert "a revoked token is said to be active" in breaches


def is_catalogue(path: str) -> bool:
    return path == "/v1/marketplace/apps"


def is_about_the_catalogue(breach: str) -> bool:
    return breach.startswith("GET /v1/marketplace/apps answers ")

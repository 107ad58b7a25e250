"""ACC-6 turns red for every credential that opens what it shouldn't."""

from __future__ import annotations

import dataclasses

import pytest

from strongroom.api import Access
from strongroom.api.table import ROUTES
from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.trust import Workbench
from strongroom.trust.checks.tokens import OPEN, SIGNED, check_tokens
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
    assert figure.breaches == ("sign-in answers 201 to a signature used before",)


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


def is_catalogue(path: str) -> bool:
    return path == "/v1/marketplace/apps"


def is_about_the_catalogue(breach: str) -> bool:
    return breach.startswith("GET /v1/marketplace/apps answers ")

"""ACC-3 turns red for every request that is served to an address outside a list."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from ipaddress import ip_address
from typing import Any

import pytest

from strongroom.api.source import SourceReader
from strongroom.api.table import ROUTES
from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.database.gates import OPEN, Gate, Gates
from strongroom.database.operation import Session
from strongroom.kernel.networks import Address
from strongroom.trust import Workbench
from strongroom.trust.checks.addresses import ELSEWHERE, check_addresses


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_addresses(bench)
    assert figure.breaches == ()
    closed = sum(route.access.value != "public" for route in ROUTES)
    assert figure.text.startswith(f"{2 * closed} requests with good tokens and 4 signatures from outside")


async def test_a_list_that_operations_do_not_ask_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Open(Gates):
        async def read(self, *_: Any) -> Gate:
            return OPEN

    monkeypatch.setattr("strongroom.database.databases.Gates", Open)
    async with served_here(Installation(bench.config)) as open_house:
        figure = await check_addresses(open_house)
    assert "GET /v1/tenant answers 200 to an address that isn't listed" in figure.breaches
    assert not any("/v1/account/ip-whitelist" in breach for breach in figure.breaches), "accounts ask elsewhere"


async def test_a_list_that_is_remembered_too_long_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    class Stale(Gates):
        async def read(self, session: Session, region: str, scope: Any) -> Gate:
            session = dataclasses.replace(session, epoch=1)
            return await super().read(session, region, scope)

    monkeypatch.setattr("strongroom.database.databases.Gates", Stale)
    async with served_here(Installation(bench.config)) as stale:
        figure = await check_addresses(stale)
    assert "GET /v1/tenant answers 200 to an address that isn't listed" in figure.breaches


async def test_a_header_that_anybody_can_write_believed_is_red(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gullible(SourceReader):
        def read(self, client: Sequence[Any] | None, headers: Iterable[tuple[bytes, bytes]]) -> Address:
            said = dict(headers).get(b"x-forwarded-for")
            return ip_address(said.decode()) if said else super().read(client, headers)

    monkeypatch.setattr("strongroom.api.surface.SourceReader", Gullible)
    async with served_here(Installation(bench.config)) as gullible:
        figure = await check_addresses(gullible)
    assert "GET /v1/tenant answers 200 to an address that isn't listed, with X-Forwarded-For forged" in figure.breaches
    assert "sign-in answers 201 to an address that isn't listed" in figure.breaches
    assert all("forged" in breach or "sign-in" in breach for breach in figure.breaches)


async def test_an_account_s_list_that_is_not_kept_where_its_keys_are_asked_for_is_red(bench: Workbench) -> None:
    async with bench.admin("directory") as connection:
        await connection.execute(
            "create function ignore() returns trigger language plpgsql as $$ begin return null; end $$"
        )
        await connection.execute(
            "create trigger ignore before insert or update on account_networks for each row execute function ignore()"
        )
        try:
            figure = await check_addresses(bench)
        finally:
            await connection.execute("drop trigger ignore on account_networks; drop function ignore")
    assert "GET /v1/account answers 200 to an address that isn't listed" in figure.breaches
    assert not any("/v1/order-management" in breach for breach in figure.breaches)


async def test_behind_a_proxy_on_the_same_machine_what_it_forwards_counts(bench: Workbench) -> None:
    config = dataclasses.replace(bench.config, trusted_proxies=("127.0.0.0/8", "::1/128"))
    async with served_here(Installation(config)) as behind:
        figure = await check_addresses(behind)
    assert figure.breaches == ()
    assert "as their proxies say" in figure.text
    assert ELSEWHERE[0] not in figure.text

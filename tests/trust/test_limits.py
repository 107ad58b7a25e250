"""ACC-5 turns red when an author lets their own payout go, and when limits, rules or ends of approvals don't hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.trust import Workbench
from strongroom.trust.checks.limits import check_limits

INDEPENDENT = "is_independent(approver text, approver_makers text[], authors text[], author_makers text[])"


@asynccontextmanager
async def altered(bench: Workbench, breaks: str, mends: str) -> AsyncIterator[None]:
    """The stage's region with something else in it, within the block."""
    async with bench.admin("eu") as connection:
        await connection.execute(breaks.encode())
        try:
            yield
        finally:
            await connection.execute(mends.encode())


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_limits(bench)
    assert figure.breaches == ()


async def test_an_author_s_approval_is_red(bench: Workbench) -> None:
    async with bench.admin("eu") as connection:
        cursor = await connection.execute("select pg_get_functiondef('is_independent'::regproc)")
        row = await cursor.fetchone()
    assert row is not None
    gullible = f"create or replace function {INDEPENDENT} returns boolean language sql immutable return true"
    async with altered(bench, gullible, str(row[0])):
        figure = await check_limits(bench)
    assert "the author's approval is answered 202 , not APPROVER_IS_AUTHOR" in figure.breaches
    assert "a large payout that only its author approved is READY, not AWAITING_APPROVAL" in figure.breaches


async def test_an_approval_that_never_expires_is_red(bench: Workbench) -> None:
    timeless = (
        "create function timeless() returns trigger language plpgsql as $$ "
        "begin new.expires_at = old.expires_at; return new; end $$; "
        "create trigger timeless before update of expires_at on approvals for each row execute function timeless()"
    )
    async with altered(bench, timeless, "drop trigger timeless on approvals; drop function timeless"):
        figure = await check_limits(bench)
    assert "an approval that comes too late is answered 202 , not APPROVAL_EXPIRED" in figure.breaches


async def test_a_change_that_keeps_its_approval_is_red(bench: Workbench) -> None:
    stale = (
        "create function stale() returns trigger language plpgsql as $$ "
        "begin if new.status = 'AWAITING_APPROVAL' then new.status = 'READY'; end if; return new; end $$; "
        "create trigger stale before update of status on instructions for each row when (old.status = 'READY') "
        "execute function stale()"
    )
    async with altered(bench, stale, "drop trigger stale on instructions; drop function stale"):
        figure = await check_limits(bench)
    assert figure.breaches == ("a payout that was changed after its approval is READY, not AWAITING_APPROVAL",)


async def test_rules_and_ceilings_that_nobody_looks_at_are_red(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def no_rules(*_: object) -> tuple[()]:
        return ()

    monkeypatch.setattr("strongroom.payments.ceilings.limits", lambda *_: ())
    monkeypatch.setattr("strongroom.payments._writing.find_rules", no_rules)
    async with served_here(Installation(bench.config)) as house:
        figure = await check_limits(house)
    assert "100.01 EUR is answered 202  where ceilings are 100 and 150 EUR" in figure.breaches
    assert "a large payout is READY, not AWAITING_APPROVAL" in figure.breaches

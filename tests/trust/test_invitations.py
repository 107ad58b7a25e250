"""ACC-1 turns red for every link that lets somebody in and shouldn't."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.database import Databases, Operation
from strongroom.people import DoorKeys
from strongroom.people.keys import decode, encode
from strongroom.trust import Workbench
from strongroom.trust.checks.invitations import check_invitations

KEEP_OPEN = """
    create function keep_open() returns trigger language plpgsql as
        $$ begin new.state := 'INVITED'; new.answered_at := null; return new; end $$;
    create trigger keep_open before update on invitations for each row when (new.state = '{state}')
        execute function keep_open()
"""


class ReadableKeys(DoorKeys):
    """Makes links that anybody can read."""

    def seal(self, end: str, content: bytes) -> str:
        return encode(bytes(12) + content)

    def open(self, end: str, sealed: str) -> bytes | None:
        raw = decode(sealed)
        return None if raw is None else raw[12:]


class TrustingKeys(DoorKeys):
    """Reads links without looking whether they were altered."""

    def open(self, end: str, sealed: str) -> bytes | None:
        raw = decode(sealed)
        if raw is None or len(raw) <= 28:
            return None
        reader = Cipher(AES(self._derived("seal")), CTR(raw[:12] + (2).to_bytes(4, "big"))).decryptor()
        return reader.update(raw[12:-16])


class ForgivingDatabases(Databases):
    """At the front door it is always an hour ago."""

    @asynccontextmanager
    async def operation(self, actor: Any, **options: Any) -> AsyncIterator[Operation]:
        async with super().operation(actor, **options) as op:
            if actor.name == "front-door":
                op.now -= timedelta(hours=1)
            yield op


@asynccontextmanager
async def broken(bench: Workbench, statement: str, mending: str) -> AsyncIterator[None]:
    """A protection of the first region's database missing, while the block lasts."""
    async with bench.admin("eu") as connection:
        await connection.execute(statement.encode())
        try:
            yield
        finally:
            await connection.execute(mending.encode())


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_invitations(bench)
    assert figure.breaches == ()
    assert "a link made a person once" in figure.text and "19 bad links refused" in figure.text


async def test_a_used_link_that_works_again_is_red(bench: Workbench) -> None:
    statement = KEEP_OPEN.format(state="ACCEPTED") + "; alter table persons disable trigger invited"
    mending = (
        "drop trigger keep_open on invitations; drop function keep_open; alter table persons enable trigger invited"
    )
    async with broken(bench, statement, mending):
        figure = await check_invitations(bench)
    assert "a used link is shown as good" in figure.breaches
    assert (await check_invitations(bench)).breaches == ()


async def test_a_withdrawn_link_that_works_is_red(bench: Workbench) -> None:
    mending = "drop trigger keep_open on invitations; drop function keep_open"
    async with broken(bench, KEEP_OPEN.format(state="REVOKED"), mending):
        figure = await check_invitations(bench)
    assert figure.breaches == ("a withdrawn link lets somebody in",)


async def test_a_person_without_an_invitation_is_red(bench: Workbench) -> None:
    async with broken(
        bench, "alter table persons disable trigger invited", "alter table persons enable trigger invited"
    ):
        figure = await check_invitations(bench)
    assert figure.breaches == ("the database takes a person whose invitation nobody accepted",)


@contextlib.asynccontextmanager
async def with_keys(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, kind: type[DoorKeys]
) -> AsyncIterator[Workbench]:
    monkeypatch.setattr("strongroom.assembly.DoorKeys", kind)
    async with served_here(Installation(bench.config)) as served:
        yield served


async def test_an_altered_link_that_works_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_keys(bench, monkeypatch, TrustingKeys) as trusting:
        figure = await check_invitations(trusting)
    assert any(breach.startswith("a link altered at") for breach in figure.breaches)


async def test_a_link_that_can_be_read_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async with with_keys(bench, monkeypatch, ReadableKeys) as readable:
        figure = await check_invitations(readable)
    assert "a link shows its account" in figure.breaches


async def test_an_expired_link_that_works_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.assembly.Databases", ForgivingDatabases)
    async with served_here(Installation(bench.config)) as forgiving:
        figure = await check_invitations(forgiving)
    assert figure.breaches == ("an expired link lets somebody in",)


async def test_a_password_that_everybody_has_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.people.passwords._is_common", lambda _: False)
    figure = await check_invitations(bench)
    assert "a common password is answered 200" in figure.breaches

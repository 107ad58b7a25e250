"""Keys are rotated while cards come and go: nothing is lost, nothing goes on being written under the old ones."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Conflict, KeyReused, NotFound, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault.cards import rotation
from strongroom.vault.cards.forwarding import ANSWER, KEPT_FOR, Forward
from strongroom.vault.cards.keys import CardKeys, Purpose
from strongroom.vault.cards.transfers import HELD, load_or_make_key
from strongroom.vault.holders import CARD_VAULT, FileHolder
from tests.vault.cards.conftest import BY, Vault, holder
from tests.vault.cards.numbers import ALL, VISA, card

PASSPHRASE = Secret("correct horse battery staple")


async def take(vault: Vault, number: str = VISA) -> str:
    return (await vault.custody.take(vault.tenant, card(number, cvv=None), BY)).token


async def number_of(vault: Vault, token: str) -> str:
    async with vault.custody.records.transaction(vault.tenant) as connection:
        return (await vault.custody.open(connection, vault.tenant, token)).number


async def renew(vault: Vault) -> int:
    """All that there is to do; how many rows that were."""
    done, after = 0, ""
    while step := await vault.rotation.work(vault.tenant, after):
        if not step.done:
            return done
        done, after = done + step.done, step.after
    return done


async def states(vault: Vault) -> set[tuple[str, int, str]]:
    return {(key.purpose, key.version, key.state) for key in (await vault.rotation.find(vault.tenant)).keys}


def sent(vault: Vault, token: str, reference: str = "r-1") -> Forward:
    return Forward(
        reference=reference, token=token, method="POST", url=f"{vault.bank.url}/charges", headers={},
        content_type="application/json", body='{"number":"{{number}}"}',
    )  # fmt: skip


async def test_all_cards_come_under_the_new_key_and_the_old_one_is_destroyed(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 5)
    tokens = {await take(vault, number): number for number in ALL}
    before = {token: await vault.custody.describe(vault.tenant, token) for token in tokens}
    assert await vault.rotation.begin(vault.tenant, "seal", BY) == 2
    assert (await vault.rotation.find(vault.tenant)).behind == len(ALL)
    late = await take(vault)
    assert await vault.rotation.finish(vault.tenant, BY) == ()
    assert await renew(vault) == len(ALL)
    assert await vault.rotation.finish(vault.tenant, BY) == [("seal", 1)]
    assert await states(vault) == {("seal", 1, "DESTROYED"), ("seal", 2, "ACTIVE"), ("fingerprint", 1, "ACTIVE")}
    wrapped = "select length(wrapped) from card_keys where tenant_id = %s and state = 'DESTROYED'"
    assert await vault.rows(wrapped, vault.tenant) == [(0,)]
    for token, number in {**tokens, late: VISA}.items():
        assert await number_of(vault, token) == number
    for token, shown in before.items():
        assert await vault.custody.describe(vault.tenant, token) == shown
    under = "select distinct substr(number_sealed, 1, 5), substr(shown_sealed, 1, 5) from cards where tenant_id = %s"
    assert await vault.rows(under, vault.tenant) == [(b"\x01\0\0\0\x02",) * 2]
    recorded = [(action, detail) for action, _, detail in await vault.events() if action.startswith("key.")]
    assert recorded == [("key.rotate", "seal 2"), ("key.destroy", "seal 1")]


async def test_a_process_that_knew_the_old_key_seals_with_the_new_one(vault: Vault) -> None:
    await take(vault)
    other = CardKeys(vault.holder, Environment.SANDBOX)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        assert (await other.of(connection, vault.tenant)).active["seal"] == 1
    await vault.rotation.begin(vault.tenant, "seal", BY)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        assert (await other.of(connection, vault.tenant)).active["seal"] == 2


async def test_a_rotation_waits_for_what_is_being_written_under_the_old_key(vault: Vault) -> None:
    await take(vault)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        keys = await vault.custody.keys.of(connection, vault.tenant)
        begun = asyncio.create_task(vault.rotation.begin(vault.tenant, "seal", BY))
        await asyncio.sleep(0.2)
        assert not begun.done()
        assert keys.active["seal"] == 1
    assert await begun == 2


async def test_it_goes_on_where_it_stopped_while_cards_come_and_go(
    vault: Vault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH", 3)
    tokens = [await take(vault, number) for number in ALL]
    await vault.rotation.begin(vault.tenant, "seal", BY)
    await vault.rotation.work(vault.tenant)
    with pytest.raises(Conflict) as refused:
        await vault.rotation.begin(vault.tenant, "seal", BY)
    assert refused.value.code == "CARD_KEY_ROTATION_UNFINISHED"

    async def shop() -> list[str]:
        await vault.custody.forget_card(vault.tenant, tokens.pop(), BY)
        return [await take(vault) for _ in range(5)]

    _, _, fresh = await asyncio.gather(renew(vault), renew(vault), shop())
    assert await renew(vault) == 0
    assert await vault.rotation.finish(vault.tenant, BY) == [("seal", 1)]
    for token in tokens + fresh:
        await number_of(vault, token)


async def test_what_can_t_be_opened_stops_the_rotation_and_its_key_stays(vault: Vault) -> None:
    token = await take(vault)
    await vault.rotation.begin(vault.tenant, "seal", BY)
    await vault.rows("update cards set shown_sealed = shown_sealed || 'x' where token = %s", token)
    with pytest.raises(Broken):
        await vault.rotation.work(vault.tenant)
    assert await vault.rotation.finish(vault.tenant, BY) == ()
    assert ("seal", 1, "RETIRING") in await states(vault)
    assert await number_of(vault, token) == VISA


async def test_fingerprints_are_made_again_under_a_new_key(vault: Vault) -> None:
    one, same = await take(vault), await take(vault)
    old = (await vault.custody.describe(vault.tenant, one)).fingerprint
    await vault.rotation.begin(vault.tenant, "fingerprint", BY)
    assert await renew(vault) == 2
    assert await vault.rotation.finish(vault.tenant, BY) == [("fingerprint", 1)]
    fresh = {
        (await vault.custody.describe(vault.tenant, token)).fingerprint for token in (one, same, await take(vault))
    }
    assert len(fresh) == 1
    assert old not in fresh


async def test_a_request_isn_t_sent_twice_because_keys_were_rotated(vault: Vault) -> None:
    token = await take(vault)
    first = await vault.forwarder.forward(vault.tenant, sent(vault, token), BY)
    for purpose in ("seal", "fingerprint"):
        await vault.rotation.begin(vault.tenant, purpose, BY)
        await renew(vault)
        await vault.rotation.finish(vault.tenant, BY)
    again = await vault.forwarder.forward(vault.tenant, sent(vault, token), BY)
    assert (again.is_replay, again.state, again.answer) == (True, "ANSWERED", first.answer)
    assert (await vault.forwarder.find(vault.tenant, "r-1")).answer == first.answer
    other = await take(vault)
    with pytest.raises(KeyReused):
        await vault.forwarder.forward(vault.tenant, sent(vault, other), BY)
    assert len(vault.bank.received) == 1
    assert ("fingerprint", 1, "RETIRING") in await states(vault)
    assert ("seal", 1, "DESTROYED") in await states(vault)
    vault.clock.advance(KEPT_FOR + timedelta(seconds=1))
    assert await vault.rotation.finish(vault.tenant, BY) == [("fingerprint", 1)]


async def test_an_answer_that_is_bound_to_its_reference_keeps_the_old_key_until_it_is_forgotten(vault: Vault) -> None:
    token = await take(vault)
    await vault.forwarder.forward(vault.tenant, sent(vault, token), BY)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        keys = await vault.custody.keys.of(connection, vault.tenant)
        sealed = keys.seal("r-1", ANSWER, b"\x93\x80\xc4\x02ok\xc2")
    await vault.rows(
        "update forwards set answer_by = 'reference', answer_sealed = %s where tenant_id = %s", sealed, vault.tenant
    )
    await vault.rotation.begin(vault.tenant, "seal", BY)
    await renew(vault)
    assert await vault.rotation.finish(vault.tenant, BY) == ()
    found = (await vault.forwarder.find(vault.tenant, "r-1")).answer
    assert found is not None
    assert found.body == b"ok"
    # It holds up no further rotation.
    assert await vault.rotation.begin(vault.tenant, "seal", BY) == 3
    await renew(vault)
    vault.clock.advance(KEPT_FOR + timedelta(seconds=1))
    assert await vault.rotation.finish(vault.tenant, BY) == [("seal", 1), ("seal", 2)]


@pytest.mark.parametrize("purpose", ["seal", "fingerprint"])
async def test_importing_back_after_a_rotation_changes_nothing(vault: Vault, purpose: Purpose) -> None:
    token = await take(vault)
    asked = await vault.transfers.request_export(vault.tenant, vault.transfers.receiver_key, BY)
    other = type(BY)("other")
    await vault.transfers.approve(vault.tenant, asked.transfer_id, other)
    part, done = await vault.transfers.export_part(vault.tenant, asked.transfer_id, 1, BY)
    await vault.rotation.begin(vault.tenant, purpose, BY)
    back = await vault.transfers.request_import(vault.tenant, done.digest, done.cards, BY)
    await vault.transfers.approve(vault.tenant, back.transfer_id, other)
    assert (await vault.transfers.import_part(vault.tenant, back.transfer_id, 1, part, BY)).state == "COMPLETED"
    assert await number_of(vault, token) == VISA


async def test_a_key_says_when_its_time_is_over(vault: Vault) -> None:
    assert (await vault.rotation.find(vault.tenant)).keys == ()
    await take(vault)
    for key in (await vault.rotation.find(vault.tenant)).keys:
        assert (key.due_at - key.created_at).days == 365


async def tenants_of(vault: Vault) -> list[UUID]:
    return [UUID(str(row[0])) for row in await vault.rows("select tenant_id from card_tenants order by tenant_id")]


async def test_nobody_s_keys_are_missed(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotation, "TENANTS", 2)
    for tenant in (vault.tenant, uuid4(), uuid4()):
        await vault.custody.take(tenant, card(cvv=None), BY)
    found: list[UUID] = []
    while page := await vault.rotation.tenants(found[-1] if found else UUID(int=0)):
        found += page
    assert found == await tenants_of(vault)


async def test_the_root_is_rotated_and_the_old_one_ended(vault: Vault) -> None:
    # The database is all tests': their tenants' keys are under roots of their own.
    await vault.rows("delete from card_tenants")
    token = await take(vault)
    assert await vault.rotation.count_under_root() == {1: 2}
    assert await vault.holder.rotate_root() == 2
    with pytest.raises(Conflict, match="2 keys of tenants"):
        await vault.rotation.end_root(1)
    assert [await vault.rotation.rewrap(vault.tenant, BY) for _ in range(2)] == [2, 0]
    assert await vault.rotation.count_under_root() == {1: 0, 2: 2}
    await vault.rotation.end_root(1)
    assert vault.holder.root_versions == (2,)
    vault.custody.keys.forget(vault.tenant)
    assert await number_of(vault, token) == VISA


async def test_the_root_s_file_is_under_a_passphrase_once_it_is_given(tmp_path: Path) -> None:
    holder(tmp_path)
    clear = (tmp_path / "root.key").read_bytes()
    protected = FileHolder(tmp_path, Environment.SANDBOX, SystemClock(), PASSPHRASE, place=CARD_VAULT)
    assert protected.is_protected
    assert clear not in (tmp_path / "root.key").read_bytes()
    with pytest.raises(Refused, match="STRONGROOM_CARDS_PASSPHRASE"):
        FileHolder(tmp_path, Environment.SANDBOX, SystemClock(), place=CARD_VAULT)
    with pytest.raises(Refused) as wrong:
        FileHolder(tmp_path, Environment.SANDBOX, SystemClock(), Secret("another passphrase"), place=CARD_VAULT)
    assert wrong.value.code == "PASSPHRASE_WRONG"


async def test_the_transfer_key_is_sealed_and_one_in_clear_is_overwritten(tmp_path: Path) -> None:
    path, held = tmp_path / "transfers.key", holder(tmp_path)
    first = await load_or_make_key(path, held)
    assert b"PRIVATE" not in path.read_bytes()
    path.write_bytes(first.as_pem(private=True))
    with path.open("rb") as still_open:
        assert (await load_or_make_key(path, held)).thumbprint() == first.thumbprint()
        assert set(still_open.read()) == {0}
    assert b"PRIVATE" not in path.read_bytes()
    await held.rotate_root()
    await held.rewrap_kept()
    assert held.references() == [HELD]
    await held.end_root_version(1)
    digest = hashlib.sha256(path.read_bytes()).digest()
    assert (await load_or_make_key(path, held)).thumbprint() == first.thumbprint()
    assert hashlib.sha256(path.read_bytes()).digest() == digest
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(Broken, match="backup"):
        await load_or_make_key(path, held)


async def test_one_card_is_forgotten_and_lists_show_masks(vault: Vault) -> None:
    tokens = sorted([await take(vault, number) for number in ALL])
    shown = await vault.custody.list_cards(vault.tenant)
    assert [one.token for one in shown] == tokens
    assert {one.masked[-4:] for one in shown} == {number[-4:] for number in ALL}
    assert [one.token for one in await vault.custody.list_cards(vault.tenant, tokens[3], 2)] == tokens[4:6]
    await vault.custody.forget_card(vault.tenant, tokens[0], BY)
    with pytest.raises(NotFound):
        await vault.custody.forget_card(vault.tenant, tokens[0], BY)
    with pytest.raises(NotFound):
        await vault.custody.forget_card(uuid4(), tokens[1], BY)
    assert len(await vault.custody.list_cards(vault.tenant)) == len(ALL) - 1

"""Cards move to another vault when two people asked, whole or not at all, and go on where they stopped."""

from __future__ import annotations

import base64
import json
from uuid import UUID, uuid4

import pytest
from joserfc import jwe
from joserfc.jwk import RSAKey

from strongroom.kernel.errors import Conflict, Forbidden, Invalid, NotFound
from strongroom.vault.cards import transfers
from strongroom.vault.cards.records import By
from strongroom.vault.cards.transfers import Transfer, Transfers
from tests.vault.cards.conftest import BY, Vault
from tests.vault.cards.numbers import ALL, VISA, card

ANNA, BERT = By("anna"), By("bert")
SHORT_KEY = {"kty": "RSA", "n": base64.urlsafe_b64encode(b"\xc1" * 128).decode().rstrip("="), "e": "AQAB"}
"""Of 1,024 bits."""


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfers, "PART_CARDS", 5)


async def fill(vault: Vault) -> dict[str, tuple[str, str]]:
    """A card of every scheme; token → fingerprint and mask."""
    kept = [await vault.custody.take(vault.tenant, card(number, cvv=None), BY) for number in ALL]
    return {one.token: (one.brand, one.masked) for one in kept}


async def export(vault: Vault) -> tuple[list[str], Transfer]:
    """All parts for the other vault, and how the export ended."""
    asked = await vault.transfers.request_export(vault.tenant, vault.another.receiver_key, ANNA)
    done = await vault.transfers.approve(vault.tenant, asked.transfer_id, BERT)
    parts: list[str] = []
    while done.state != "COMPLETED":
        part, done = await vault.transfers.export_part(vault.tenant, asked.transfer_id, len(parts) + 1, ANNA)
        parts.append(part)
    return parts, done


async def approved(receiver: Transfers, tenant: UUID, digest: str, count: int) -> UUID:
    asked = await receiver.request_import(tenant, digest, count, ANNA)
    return (await receiver.approve(tenant, asked.transfer_id, BERT)).transfer_id


async def test_all_of_a_tenant_s_cards_move_with_their_tokens(vault: Vault) -> None:
    cards, tenant = await fill(vault), uuid4()
    await vault.custody.take(uuid4(), card(), BY)
    parts, sent = await export(vault)
    assert (sent.cards, sent.parts, len(parts)) == (12, 3, 3)
    wanted = await approved(vault.another, tenant, sent.digest, sent.cards)
    for number, part in enumerate(parts, 1):
        with pytest.raises(NotFound):
            await vault.custody.describe(tenant, next(iter(cards)))
        got = await vault.another.import_part(tenant, wanted, number, part, ANNA)
    assert (got.state, got.cards, got.digest) == ("COMPLETED", sent.cards, sent.digest)
    for token, (brand, masked) in cards.items():
        moved = await vault.custody.describe(tenant, token)
        assert (moved.brand, moved.masked) == (brand, masked)
        async with vault.custody.records.transaction(tenant) as connection:
            assert (await vault.custody.open(connection, tenant, token)).number in ALL
    details = [detail for action, _, detail in await vault.events() if action == "cards.export"]
    assert [detail.split(" ", 1)[1] for detail in details] == [
        "request", "approve", "part 1, 5 cards", "part 2, 5 cards", "part 3, 2 cards",
    ]  # fmt: skip


async def test_nothing_moves_before_two_people_asked(vault: Vault) -> None:
    await fill(vault)
    asked = await vault.transfers.request_export(vault.tenant, vault.another.receiver_key, ANNA)
    with pytest.raises(Conflict) as refused:
        await vault.transfers.export_part(vault.tenant, asked.transfer_id, 1, ANNA)
    assert refused.value.code == "TRANSFER_STATE_CONFLICT"
    with pytest.raises(Forbidden):
        await vault.transfers.approve(vault.tenant, asked.transfer_id, ANNA)
    with pytest.raises(NotFound):
        await vault.transfers.approve(uuid4(), asked.transfer_id, BERT)
    await vault.transfers.approve(vault.tenant, asked.transfer_id, BERT)
    with pytest.raises(Conflict):
        await vault.transfers.approve(vault.tenant, asked.transfer_id, BERT)
    assert (await vault.transfers.export_part(vault.tenant, asked.transfer_id, 1, ANNA))[1].cards == 5


async def test_both_sides_go_on_where_they_stopped(vault: Vault) -> None:
    await fill(vault)
    parts, sent = await export(vault)
    for number, part in enumerate(parts, 1):
        assert (await vault.transfers.export_part(vault.tenant, sent.transfer_id, number, ANNA))[0] == part
    with pytest.raises(NotFound):
        await vault.transfers.export_part(vault.tenant, sent.transfer_id, 4, ANNA)
    tenant = uuid4()
    wanted = await approved(vault.another, tenant, sent.digest, sent.cards)
    with pytest.raises(Invalid, match="part 1 next"):
        await vault.another.import_part(tenant, wanted, 2, parts[1], ANNA)
    for _ in range(2):
        assert (await vault.another.import_part(tenant, wanted, 1, parts[0], ANNA)).cards == 5
    with pytest.raises(Invalid) as refused:
        await vault.another.import_part(tenant, wanted, 1, parts[1], ANNA)
    assert refused.value.code == "TRANSFER_PART_DIFFERS"
    with pytest.raises(Invalid, match="This is part 3"):
        await vault.another.import_part(tenant, wanted, 2, parts[2], ANNA)
    for number in (2, 3):
        got = await vault.another.import_part(tenant, wanted, number, parts[number - 1], ANNA)
    assert got.state == "COMPLETED"


async def test_what_is_taken_after_the_approval_stays(vault: Vault) -> None:
    await fill(vault)
    asked = await vault.transfers.request_export(vault.tenant, vault.another.receiver_key, ANNA)
    await vault.transfers.approve(vault.tenant, asked.transfer_id, BERT)
    await vault.custody.take(vault.tenant, card(), BY)
    ended = asked
    while ended.state != "COMPLETED":
        _, ended = await vault.transfers.export_part(vault.tenant, asked.transfer_id, ended.parts + 1, ANNA)
    assert ended.cards == 12


async def test_the_wrong_receiver_tampered_and_truncated_parts_are_refused(vault: Vault) -> None:
    await fill(vault)
    parts, sent = await export(vault)
    tenant = uuid4()
    wanted = await approved(vault.another, tenant, sent.digest, sent.cards)
    middle = len(parts[0]) // 2
    flipped = "A" if parts[0][middle] != "A" else "B"
    bad = [
        parts[0][:-8],
        parts[0][:middle],
        parts[0][:middle] + flipped + parts[0][middle + 1 :],
        "",
        "a.b.c.d.e",
        "x" * 300_000,
    ]
    for content in bad:
        with pytest.raises(Invalid) as refused:
            await vault.another.import_part(tenant, wanted, 1, content, ANNA)
        assert refused.value.code == "TRANSFER_PART_UNREADABLE"
    mine = await approved(vault.transfers, tenant, sent.digest, sent.cards)
    with pytest.raises(Invalid) as refused:
        await vault.transfers.import_part(tenant, mine, 1, parts[0], ANNA)
    assert refused.value.code == "TRANSFER_PART_UNREADABLE"


@pytest.mark.parametrize("wrong", ["digest", "count"])
async def test_a_file_that_isn_t_the_one_announced_leaves_nothing(vault: Vault, wrong: str) -> None:
    await fill(vault)
    parts, sent = await export(vault)
    tenant = uuid4()
    digest, count = ("0" * 64, sent.cards) if wrong == "digest" else (sent.digest, sent.cards + 1)
    wanted = await approved(vault.another, tenant, digest, count)
    for number in (1, 2):
        await vault.another.import_part(tenant, wanted, number, parts[number - 1], ANNA)
    with pytest.raises(Conflict) as refused:
        await vault.another.import_part(tenant, wanted, 3, parts[2], ANNA)
    assert refused.value.code == "TRANSFER_DIFFERS"
    assert (await vault.another.find(tenant, wanted)).state == "FAILED"
    assert await vault.rows("select 1 from cards where tenant_id = %s", tenant) == []
    with pytest.raises(Conflict):
        await vault.another.import_part(tenant, wanted, 4, parts[2], ANNA)


async def test_a_cancelled_import_leaves_nothing(vault: Vault) -> None:
    await fill(vault)
    parts, sent = await export(vault)
    tenant = uuid4()
    wanted = await approved(vault.another, tenant, sent.digest, sent.cards)
    await vault.another.import_part(tenant, wanted, 1, parts[0], ANNA)
    assert (await vault.another.cancel(tenant, wanted, ANNA)).state == "CANCELLED"
    assert await vault.rows("select 1 from cards where tenant_id = %s", tenant) == []


async def test_importing_back_changes_nothing_and_a_token_of_another_card_is_refused(vault: Vault) -> None:
    cards = await fill(vault)
    asked = await vault.transfers.request_export(vault.tenant, vault.transfers.receiver_key, ANNA)
    await vault.transfers.approve(vault.tenant, asked.transfer_id, BERT)
    parts, done = [], asked
    while done.state != "COMPLETED":
        part, done = await vault.transfers.export_part(vault.tenant, asked.transfer_id, len(parts) + 1, ANNA)
        parts.append(part)
    back = await approved(vault.transfers, vault.tenant, done.digest, done.cards)
    for number, part in enumerate(parts, 1):
        got = await vault.transfers.import_part(vault.tenant, back, number, part, ANNA)
    assert got.state == "COMPLETED"
    assert len(await vault.rows("select 1 from cards where tenant_id = %s", vault.tenant)) == len(cards)
    await vault.rows("update cards set fingerprint = 'x' where tenant_id = %s", vault.tenant)
    again = await approved(vault.transfers, vault.tenant, done.digest, done.cards)
    with pytest.raises(Invalid) as refused:
        await vault.transfers.import_part(vault.tenant, again, 1, parts[0], ANNA)
    assert refused.value.code == "TRANSFER_TOKEN_TAKEN"


async def test_a_tenant_without_cards_has_an_empty_last_part(vault: Vault) -> None:
    parts, sent = await export(vault)
    assert (len(parts), sent.cards) == (1, 0)


@pytest.mark.parametrize("key", [None, {}, {"kty": "RSA"}, {"kty": "EC"}, "key", SHORT_KEY])
@pytest.mark.filterwarnings("ignore:Key size should be")
async def test_keys_that_can_t_receive(vault: Vault, key: object) -> None:
    with pytest.raises(Invalid) as refused:
        await vault.transfers.request_export(vault.tenant, key, ANNA)
    assert refused.value.code == "RECEIVER_KEY_INVALID"


async def test_a_private_key_is_refused_and_not_kept(vault: Vault) -> None:
    with pytest.raises(Invalid):
        await vault.transfers.request_export(vault.tenant, RSAKey.generate_key(2048).as_dict(private=True), ANNA)
    assert await vault.rows("select 1 from transfers where tenant_id = %s", vault.tenant) == []


@pytest.mark.parametrize(
    ("digest", "count", "codes"),
    [
        ("xyz", 1, ["TRANSFER_DIGEST_INVALID"]),
        (None, True, ["TRANSFER_DIGEST_INVALID", "TRANSFER_COUNT_INVALID"]),
        ("00" * 32, -1, ["TRANSFER_COUNT_INVALID"]),
    ],
)
async def test_what_an_import_has_to_know(vault: Vault, digest: object, count: object, codes: list[str]) -> None:
    with pytest.raises(Invalid) as refused:
        await vault.transfers.request_import(vault.tenant, digest, count, ANNA)
    assert [failure.code for failure in refused.value.failures] == codes


async def test_a_card_of_two_imports_isn_t_lost_with_one_of_them(vault: Vault) -> None:
    await fill(vault)
    parts, sent = await export(vault)
    tenant = uuid4()
    one, other = [await approved(vault.another, tenant, sent.digest, sent.cards) for _ in range(2)]
    await vault.another.import_part(tenant, one, 1, parts[0], ANNA)
    with pytest.raises(Conflict) as refused:
        await vault.another.import_part(tenant, other, 1, parts[0], ANNA)
    assert refused.value.code == "TRANSFER_OVERLAPS"
    await vault.another.cancel(tenant, one, ANNA)
    for number, part in enumerate(parts, 1):
        got = await vault.another.import_part(tenant, other, number, part, ANNA)
    assert got.state == "COMPLETED"
    active = "select 1 from cards where tenant_id = %s and status = 'ACTIVE'"
    assert len(await vault.rows(active, tenant)) == sent.cards


def made_part(vault: Vault, *, protected: dict[str, str] | None = None, **changed: object) -> str:
    """A part of somebody's making, for the other vault."""
    one = {"token": "card_x", "number": VISA, "expiryMonth": 1, "expiryYear": 2030, "holder": "", **changed}
    content = {"transfer": "t", "part": 1, "isLast": True, "cards": [one]}
    header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", **(protected or {})}
    key = RSAKey.import_key(dict(vault.another.receiver_key))
    return jwe.encrypt_compact(header, json.dumps(content).encode(), key, algorithms=[*header.values()])


@pytest.mark.parametrize(
    "changed",
    [
        {"number": "4111111111111112"}, {"number": "9999"}, {"token": "x"}, {"token": "card_" + "x" * 100},
        {"expiryMonth": 13}, {"expiryYear": 10**6}, {"holder": "two\nlines"}, {"holder": "x" * 141}, {"holder": VISA},
    ],
)  # fmt: skip
async def test_cards_that_no_vault_would_take_are_not_imported(vault: Vault, changed: dict[str, object]) -> None:
    wanted = await approved(vault.another, vault.tenant, "0" * 64, 1)
    with pytest.raises(Invalid) as refused:
        await vault.another.import_part(vault.tenant, wanted, 1, made_part(vault, **changed), ANNA)
    assert refused.value.code == "TRANSFER_CARD_INVALID"
    assert VISA not in str(refused.value)


@pytest.mark.parametrize("header", [{"zip": "DEF"}, {"alg": "RSA-OAEP"}, {"enc": "A128GCM"}])
async def test_parts_are_not_decompressed_nor_opened_by_weaker_algorithms(vault: Vault, header: dict[str, str]) -> None:
    wanted = await approved(vault.another, vault.tenant, "0" * 64, 1)
    part = made_part(vault, protected=header, holder="x" * 140)
    with pytest.raises(Invalid) as refused:
        await vault.another.import_part(vault.tenant, wanted, 1, part, ANNA)
    assert refused.value.code == "TRANSFER_PART_UNREADABLE"

"""Cards are kept sealed, shown masked, claimed once and forgotten for good."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import uuid4

import pytest

from strongroom.kernel.card_numbers import is_card_number
from strongroom.kernel.errors import Broken, Invalid, NotFound, Refused, Unauthenticated
from strongroom.vault.cards.custody import MAX_ATTEMPTS, SESSION_LIFETIME, new_token
from tests.vault.cards.conftest import BY, Vault
from tests.vault.cards.numbers import AMEX, VISA, card

CUSTOMER = "c" * 32


async def test_a_card_is_taken_and_shown_masked(vault: Vault) -> None:
    taken = await vault.custody.take(vault.tenant, card(), BY)
    assert (taken.brand, taken.masked, taken.first, taken.last) == ("VISA", "41111111****1111", "41111111", "1111")
    assert (taken.expiry.month, taken.expiry.year, len(taken.fingerprint)) == (12, 2031, 40)
    assert await vault.custody.describe(vault.tenant, taken.token) == taken
    assert await vault.events() == [("card.take", "done", "")]


async def test_every_taking_has_a_token_and_a_number_one_fingerprint(vault: Vault) -> None:
    one, other = [await vault.custody.take(vault.tenant, card(), BY) for _ in range(2)]
    amex = await vault.custody.take(vault.tenant, card(AMEX, cvv="1234"), BY)
    elsewhere = await vault.custody.take(uuid4(), card(), BY)
    assert one.token != other.token
    assert one.fingerprint == other.fingerprint
    assert len({one.fingerprint, amex.fingerprint, elsewhere.fingerprint}) == 3


def test_a_token_tells_nothing_and_looks_like_no_number() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert all(token.startswith("card_") and not any(map(str.isdigit, token)) for token in tokens)
    assert not any(is_card_number("".join(filter(str.isdigit, token))) for token in tokens)


async def test_nothing_of_a_card_stands_in_the_database_in_clear(vault: Vault) -> None:
    await vault.custody.take(vault.tenant, card(), BY)
    row = str(await vault.rows("select t::text from cards t where tenant_id = %s", vault.tenant))
    for secret in (VISA, "1111", "2031", "Erika", VISA.encode().hex(), b"Erika".hex()):
        assert secret not in row


async def test_another_tenant_finds_nothing(vault: Vault) -> None:
    taken = await vault.custody.take(vault.tenant, card(), BY)
    with pytest.raises(NotFound):
        await vault.custody.describe(uuid4(), taken.token)
    async with vault.custody.records.transaction(uuid4()) as connection:
        cursor = await connection.execute("select count(*) from cards")
        assert await cursor.fetchone() == (0,)


async def test_a_row_carried_to_another_tenant_or_token_doesn_t_open(vault: Vault) -> None:
    taken, other = [await vault.custody.take(vault.tenant, card(), BY) for _ in range(2)]
    await vault.rows(
        "update cards set number_sealed = (select number_sealed from cards where token = %s), "
        "shown_sealed = (select shown_sealed from cards where token = %s) where token = %s",
        taken.token,
        taken.token,
        other.token,
    )
    with pytest.raises(Broken):
        await vault.custody.describe(vault.tenant, other.token)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        with pytest.raises(Broken):
            await vault.custody.open(connection, vault.tenant, other.token)


async def test_a_refused_card_leaves_its_codes_and_nothing_else(vault: Vault) -> None:
    with pytest.raises(Invalid):
        await vault.custody.take(vault.tenant, card("4111111111111112", expiryYear=2001), BY)
    assert await vault.events() == [("card.take", "refused", "CARD_NUMBER_INVALID CARD_EXPIRED")]
    assert await vault.rows("select 1 from cards where tenant_id = %s", vault.tenant) == []
    assert len(vault.custody.codes) == 0


async def test_a_session_takes_one_card_for_its_customer(vault: Vault) -> None:
    session = await vault.custody.open_session(vault.tenant, CUSTOMER, BY)
    secret = session.secret.reveal()
    taken = await vault.custody.take_with_session(secret, card())
    with pytest.raises(Unauthenticated):
        await vault.custody.take_with_session(secret, card())
    with pytest.raises(Refused) as refused:
        await vault.custody.claim(vault.tenant, taken.token, "d" * 32, BY)
    assert refused.value.code == "CARD_OF_OTHER_CUSTOMER"
    assert (await vault.custody.claim(vault.tenant, taken.token, CUSTOMER, BY)).token == taken.token
    kept = await vault.rows("select session_hash::text from card_sessions where tenant_id = %s", vault.tenant)
    assert secret not in str(kept)


async def test_of_many_at_once_a_session_takes_one(vault: Vault) -> None:
    secret = (await vault.custody.open_session(vault.tenant, CUSTOMER, BY)).secret.reveal()
    tries = [vault.custody.take_with_session(secret, card()) for _ in range(MAX_ATTEMPTS)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(result, BaseException) for result in results) == 1
    assert len(await vault.rows("select 1 from cards where tenant_id = %s", vault.tenant)) == 1


async def test_a_session_survives_typing_mistakes_but_not_guessing(vault: Vault) -> None:
    secret = (await vault.custody.open_session(vault.tenant, CUSTOMER, BY)).secret.reveal()
    for _ in range(MAX_ATTEMPTS - 1):
        with pytest.raises(Invalid):
            await vault.custody.take_with_session(secret, card("4111111111111112"))
    assert (await vault.custody.take_with_session(secret, card())).last == "1111"
    secret = (await vault.custody.open_session(vault.tenant, CUSTOMER, BY)).secret.reveal()
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Invalid):
            await vault.custody.take_with_session(secret, card("4111111111111112"))
    with pytest.raises(Unauthenticated):
        await vault.custody.take_with_session(secret, card())


async def test_a_session_s_time_ends_and_is_then_forgotten(vault: Vault) -> None:
    secret = (await vault.custody.open_session(vault.tenant, CUSTOMER, BY)).secret.reveal()
    vault.clock.advance(SESSION_LIFETIME)
    with pytest.raises(Unauthenticated) as refused:
        await vault.custody.take_with_session(secret, card())
    assert refused.value.code == "CARD_SESSION_INVALID"
    await vault.rows(
        "update card_sessions set expires_at = now() - %s where tenant_id = %s", timedelta(days=2), vault.tenant
    )
    assert await vault.custody.records.forget_sessions() >= 1
    assert await vault.rows("select 1 from card_sessions where tenant_id = %s", vault.tenant) == []


@pytest.mark.parametrize("secret", ["", "cs_x", "a" * 4000, "\0"])
async def test_a_made_up_session_opens_nothing(vault: Vault, secret: str) -> None:
    with pytest.raises(Unauthenticated):
        await vault.custody.take_with_session(secret, card())


async def test_forgetting_a_customer_leaves_bare_rows_of_their_cards_only(vault: Vault) -> None:
    mine, theirs = [await vault.custody.take(vault.tenant, card(), BY) for _ in range(2)]
    unclaimed = await vault.custody.take(vault.tenant, card(), BY)
    await vault.custody.claim(vault.tenant, mine.token, CUSTOMER, BY)
    await vault.custody.claim(vault.tenant, theirs.token, "d" * 32, BY)
    assert await vault.custody.forget_customer(vault.tenant, CUSTOMER, BY) == 1
    assert await vault.custody.forget_customer(vault.tenant, CUSTOMER, BY) == 0
    assert await vault.custody.forget_customer(vault.tenant, "", BY) == 0
    with pytest.raises(NotFound):
        await vault.custody.describe(vault.tenant, mine.token)
    statement = "select number_sealed, shown_sealed, fingerprint, customer from cards where token = %s"
    assert await vault.rows(statement, mine.token) == [(b"", b"", b"", "")]
    assert not vault.custody.codes.has(vault.tenant, mine.token)
    for kept in (theirs, unclaimed):
        assert (await vault.custody.describe(vault.tenant, kept.token)).token == kept.token


async def test_a_code_is_kept_for_the_token_it_came_with(vault: Vault) -> None:
    with_code = await vault.custody.take(vault.tenant, card(), BY)
    without = await vault.custody.take(vault.tenant, card(cvv=None), BY)
    assert vault.custody.codes.has(vault.tenant, with_code.token)
    assert not vault.custody.codes.has(vault.tenant, without.token)


async def test_the_record_can_only_be_added_to(vault: Vault) -> None:
    await vault.custody.take(vault.tenant, card(), BY)
    for statement in (b"update card_events set detail = ''", b"delete from card_events"):
        with pytest.raises(Exception, match="permission denied"):
            async with vault.custody.records.transaction(vault.tenant) as connection:
                await connection.execute(statement)

"""The vault's own keys: an envelope opens where it was put, under the root that made it, and nowhere else."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken
from strongroom.kernel.secret import Secret
from strongroom.vault.cards.keys import COMMITMENT_BYTES, HEADER_BYTES, NONCE_BYTES, CardKeys, Purpose, TenantKeys
from tests.vault.cards.conftest import ROOT, Vault, holder

KEY, OTHER_KEY = Secret(b"k" * 32), Secret(b"o" * 32)
TENANT = UUID(int=7)
FINGERPRINT_KEY = Secret(b"f" * 32)


def tenant_keys(
    tenant: UUID, seal: dict[int, Secret[bytes]], fingerprint: Secret[bytes] = FINGERPRINT_KEY
) -> TenantKeys:
    """With the newest version of each in use."""
    keys: dict[Purpose, dict[int, Secret[bytes]]] = {"seal": seal, "fingerprint": {1: fingerprint}}
    return TenantKeys(tenant, keys, {"seal": max(seal), "fingerprint": 1})


KEYS = tenant_keys(TENANT, {1: KEY})


def test_what_is_sealed_opens_again_and_is_never_sealed_the_same() -> None:
    one, other = KEYS.seal("card_a", "number", b"secret"), KEYS.seal("card_a", "number", b"secret")
    assert KEYS.open("card_a", "number", one) == KEYS.open("card_a", "number", other) == b"secret"
    assert one != other
    assert b"secret" not in one


@pytest.mark.parametrize(
    ("keys", "token", "field"),
    [
        (tenant_keys(UUID(int=8), {1: KEY}), "card_a", "number"),
        (tenant_keys(TENANT, {1: OTHER_KEY}), "card_a", "number"),
        (tenant_keys(TENANT, {2: KEY}), "card_a", "number"),
        (KEYS, "card_b", "number"),
        (KEYS, "card_a", "shown"),
    ],
)
def test_it_opens_nowhere_else(keys: TenantKeys, token: str, field: str) -> None:
    sealed = KEYS.seal("card_a", "number", b"secret")
    with pytest.raises(Broken, match="does not open"):
        keys.open(token, field, sealed)


def test_no_bit_of_it_can_be_changed() -> None:
    sealed = KEYS.seal("card_a", "number", b"secret")
    for at in range(len(sealed)):
        altered = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(Broken):
            KEYS.open("card_a", "number", altered)
    for length in range(len(sealed)):
        with pytest.raises(Broken):
            KEYS.open("card_a", "number", sealed[:length])


def test_the_layout() -> None:
    sealed = KEYS.seal("card_a", "number", b"secret")
    assert sealed[:HEADER_BYTES] == b"\x01\0\0\0\x01"
    assert len(sealed) == HEADER_BYTES + COMMITMENT_BYTES + NONCE_BYTES + len(b"secret") + 16


def test_an_older_key_still_opens_what_it_sealed() -> None:
    sealed = KEYS.seal("card_a", "number", b"secret")
    rotated = tenant_keys(TENANT, {1: KEY, 2: OTHER_KEY})
    assert rotated.open("card_a", "number", sealed) == b"secret"
    assert rotated.seal("card_a", "number", b"secret")[:HEADER_BYTES] == b"\x01\0\0\0\x02"


def test_fingerprints_are_of_the_whole_number_and_of_one_tenant() -> None:
    other = tenant_keys(UUID(int=8), {1: KEY}, Secret(b"g" * 32))
    assert KEYS.fingerprint(b"4111111111111111") == KEYS.fingerprint(b"4111111111111111")
    assert KEYS.fingerprint(b"4111111111111111") != KEYS.fingerprint(b"4111111111111112")
    assert KEYS.fingerprint(b"4111111111111111") != other.fingerprint(b"4111111111111111")


async def test_keys_are_made_once_and_kept_wrapped(vault: Vault) -> None:
    rings = [CardKeys(vault.holder, Environment.SANDBOX) for _ in range(4)]

    async def use(ring: CardKeys) -> bytes:
        async with vault.custody.records.transaction(vault.tenant) as connection:
            return (await ring.of(connection, vault.tenant)).fingerprint(b"x")

    assert len(set(await asyncio.gather(*map(use, rings)))) == 1
    rows = await vault.rows(
        "select purpose, version, length(wrapped) from card_keys where tenant_id = %s", vault.tenant
    )
    assert sorted(rows) == [("fingerprint", 1, 65), ("seal", 1, 65)]


@pytest.mark.parametrize(
    ("root", "environment"), [(OTHER_KEY, Environment.SANDBOX), (ROOT, Environment.PRODUCTION)], ids=["root", "world"]
)
async def test_another_root_or_environment_opens_no_key(
    vault: Vault, tmp_path: Path, root: Secret[bytes], environment: Environment
) -> None:
    (tmp_path / "other").mkdir()
    ring = CardKeys(holder(tmp_path / "other", root, environment), environment)
    for keys in (vault.custody.keys, ring):
        async with vault.custody.records.transaction(vault.tenant) as connection:
            if keys is not ring:
                await keys.of(connection, vault.tenant)
                continue
            with pytest.raises(Broken, match=r"root\.key"):
                await ring.of(connection, vault.tenant)


async def test_a_key_carried_to_another_tenant_opens_nothing(vault: Vault) -> None:
    other = uuid4()
    async with vault.custody.records.transaction(vault.tenant) as connection:
        await vault.custody.keys.of(connection, vault.tenant)
    await vault.rows(
        "insert into card_keys select %s, purpose, version, wrapped, created_at, state from card_keys "
        "where tenant_id = %s",
        other,
        vault.tenant,
    )
    async with vault.custody.records.transaction(other) as connection:
        with pytest.raises(Broken):
            await vault.custody.keys.of(connection, other)


async def test_keys_that_the_first_vaults_wrapped_still_open(vault: Vault) -> None:
    context = b"\0".join((b"strongroom card key", b"sandbox", vault.tenant.bytes, b"seal", b"\0\0\0\x01"))
    wrapped = b"n" * NONCE_BYTES + AESGCM(ROOT.reveal()).encrypt(b"n" * NONCE_BYTES, KEY.reveal(), context)
    await vault.rows("insert into card_keys values (%s, 'seal', 1, %s, now())", vault.tenant, wrapped)
    async with vault.custody.records.transaction(vault.tenant) as connection:
        await vault.custody.keys.add(connection, vault.tenant, "fingerprint", 1)
        keys = await vault.custody.keys.of(connection, vault.tenant)
    assert keys.open("card_a", "number", tenant_keys(vault.tenant, {1: KEY}).seal("card_a", "number", b"x")) == b"x"

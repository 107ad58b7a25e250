"""Envelopes open where they were put and nowhere else; keys open under the master key they were wrapped with."""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken
from strongroom.kernel.ids import new_uuid
from strongroom.kernel.secret import Secret
from strongroom.vault import MasterKey, ScopeCipher, load_or_make_master_key
from strongroom.vault.keyring import NoCipher

SCOPE = UUID(int=7)
SEAL, INDEX = b"s" * 32, b"i" * 32
ROW = b"r" * 16


def cipher(scope: UUID = SCOPE, versions: tuple[int, ...] = (1,)) -> ScopeCipher:
    return ScopeCipher(scope, {version: Secret(bytes([version]) * 32) for version in versions}, Secret(INDEX))


@given(st.binary(max_size=2000), st.binary(min_size=16, max_size=32))
def test_what_is_sealed_opens_in_its_place(plaintext: bytes, row: bytes) -> None:
    envelope = cipher().seal("orders", "sealed", row, plaintext)
    assert cipher().open("orders", "sealed", row, envelope) == plaintext
    assert len(envelope) == 5 + 12 + len(plaintext) + 16


def test_an_envelope_has_the_documented_layout() -> None:
    """Opened with nothing but the cipher library, from what the docstring of the module says."""
    envelope = cipher(versions=(1, 3)).seal("orders", "sealed", ROW, b"two hundred")
    assert envelope[:5] == b"\x01\x00\x00\x00\x03"
    context = b"strongroom envelope\0" + SCOPE.bytes + b"orders\0sealed\0" + ROW + envelope[:5]
    assert AESGCM(b"\x03" * 32).decrypt(envelope[5:17], envelope[17:], context) == b"two hundred"


@pytest.mark.parametrize(
    ("scope", "table", "column", "row"),
    [
        (UUID(int=8), "orders", "sealed", ROW),
        (SCOPE, "customers", "sealed", ROW),
        (SCOPE, "orders", "other", ROW),
        (SCOPE, "orders", "sealed", b"R" * 16),
        (SCOPE, "orderss", "ealed", ROW),
    ],
)
def test_an_envelope_opens_nowhere_else(scope: UUID, table: str, column: str, row: bytes) -> None:
    envelope = cipher().seal("orders", "sealed", ROW, b"x")
    with pytest.raises(Broken) as refused:
        cipher(scope).open(table, column, row, envelope)
    assert refused.value.code == "ENVELOPE_BROKEN"


@given(st.integers(0, 40), st.integers(1, 255))
def test_an_altered_envelope_is_refused(position: int, change: int) -> None:
    envelope = bytearray(cipher().seal("orders", "sealed", ROW, b"12345678"))
    envelope[position] ^= change
    with pytest.raises(Broken):
        cipher().open("orders", "sealed", ROW, bytes(envelope))


@given(st.integers(0, 40))
def test_a_truncated_envelope_is_refused(length: int) -> None:
    envelope = cipher().seal("orders", "sealed", ROW, b"12345678")
    with pytest.raises(Broken):
        cipher().open("orders", "sealed", ROW, envelope[:length])


def test_old_versions_are_opened_and_the_newest_seals() -> None:
    old = cipher(versions=(1,)).seal("orders", "sealed", ROW, b"x")
    both = cipher(versions=(1, 2))
    assert both.open("orders", "sealed", ROW, old) == b"x"
    with pytest.raises(Broken):
        cipher(versions=(1,)).open("orders", "sealed", ROW, both.seal("orders", "sealed", ROW, b"x"))


def test_no_nonce_comes_twice() -> None:
    one = cipher()
    assert len({one.seal("t", "c", ROW, b"")[5:17] for _ in range(5_000)}) == 5_000


@given(st.text(max_size=60))
def test_the_index_is_an_hmac_of_the_column(value: str) -> None:
    column_key = hmac.digest(INDEX, b"orders\0order_id", hashlib.sha256)
    expected = hmac.digest(column_key, value.encode("utf-8", "surrogatepass"), hashlib.sha256)[:16]
    assert cipher().index("orders", "order_id", value) == expected


def test_the_index_tells_scopes_and_columns_apart() -> None:
    one, other = cipher(), ScopeCipher(SCOPE, {1: Secret(SEAL)}, Secret(b"j" * 32))
    found = {one.index("a", "b", "v"), one.index("a", "c", "v"), one.index("b", "b", "v"), other.index("a", "b", "v")}
    assert len(found) == 4


def test_a_scope_without_keys_does_nothing() -> None:
    none = NoCipher()
    for attempt in (
        lambda: none.seal("t", "c", ROW, b""),
        lambda: none.open("t", "c", ROW, b""),
        lambda: none.index("t", "c", ""),
    ):
        with pytest.raises(Broken) as refused:
            attempt()
        assert refused.value.code == "DATA_KEY_MISSING"


def test_a_data_key_opens_only_as_what_it_was_wrapped() -> None:
    master = MasterKey(Secret(b"m" * 32), Environment.SANDBOX)
    scope, key = new_uuid(), Secret(os.urandom(32))
    wrapped = master.wrap(key, scope=scope, purpose="seal", version=1)
    assert key.reveal() not in wrapped
    assert master.unwrap(wrapped, scope=scope, purpose="seal", version=1).reveal() == key.reveal()
    production = MasterKey(Secret(b"m" * 32), Environment.PRODUCTION)
    stranger = MasterKey(Secret(b"n" * 32), Environment.SANDBOX)
    for attempt in (
        lambda: master.unwrap(wrapped, scope=new_uuid(), purpose="seal", version=1),
        lambda: master.unwrap(wrapped, scope=scope, purpose="index", version=1),
        lambda: master.unwrap(wrapped, scope=scope, purpose="seal", version=2),
        lambda: master.unwrap(wrapped[:-1], scope=scope, purpose="seal", version=1),
        lambda: production.unwrap(wrapped, scope=scope, purpose="seal", version=1),
        lambda: stranger.unwrap(wrapped, scope=scope, purpose="seal", version=1),
    ):
        with pytest.raises(Broken) as refused:
            attempt()
        assert refused.value.code == "DATA_KEY_BROKEN"


def test_the_master_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "master.key"
    first = load_or_make_master_key(path, Environment.SANDBOX)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    wrapped = first.wrap(Secret(b"k" * 32), scope=SCOPE, purpose="seal", version=1)
    again = load_or_make_master_key(path, Environment.SANDBOX)
    assert again.unwrap(wrapped, scope=SCOPE, purpose="seal", version=1).reveal() == b"k" * 32
    assert [entry.name for entry in path.parent.iterdir()] == ["master.key"]


@pytest.mark.parametrize(
    ("mode", "content", "code"), [(0o640, b"k" * 32, "MASTER_KEY_UNSAFE"), (0o600, b"k" * 31, "MASTER_KEY_BROKEN")]
)
def test_a_master_key_that_others_may_read_or_that_is_cut_is_refused(
    tmp_path: Path, mode: int, content: bytes, code: str
) -> None:
    path = tmp_path / "master.key"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(Broken) as refused:
        load_or_make_master_key(path, Environment.SANDBOX)
    assert refused.value.code == code

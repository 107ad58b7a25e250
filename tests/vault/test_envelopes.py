"""Envelopes open where they were put and nowhere else, under the key that they commit to, whichever layer it is."""

from __future__ import annotations

import gc
import hashlib
import hmac
import os
import weakref
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from strongroom.database import KeysChanged, Purpose
from strongroom.kernel.errors import Broken, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault import Layer, LayerCipher, ScopeCipher, envelopes
from strongroom.vault.envelopes import HEADER_BYTES, NONCE_BYTES, context_of, derive, version_of
from strongroom.vault.holders.contract import Reason
from strongroom.vault.keyring import NoCipher
from strongroom.vault.leases import Shut

SCOPE = UUID(int=7)
INDEX = b"i" * 32
ROW = b"r" * 16
OVERHEAD = 22 + 12 + 16
PERSON = 7
PURPOSE = "execution"
PLACES = {("orders", "sealed"): OVERHEAD, ("payment_files", "sealed"): 2 * OVERHEAD}
"""A column of one layer, and one of both, and by how much their envelopes are longer than the content."""
ALL_PLACES = PLACES | {("financial_instruments", "sensitive"): 2 * OVERHEAD + 8}
"""And one that is one person's alone."""


class Held:
    """A customer's layer that is there."""

    def __init__(self, cipher: LayerCipher) -> None:
        self._cipher = cipher
        self.newest = cipher.newest

    def cipher(self) -> LayerCipher:
        return self._cipher


class Known(dict[int, Secret[bytes]]):
    """Persons' secrets that are there, and how many were opened."""

    opened = 0

    def read(self, person: int) -> bytes | None:
        secret = self.get(person)
        return None if secret is None else secret.reveal()

    def open(self, person: int, kept: bytes) -> Secret[bytes]:
        self.opened += 1
        return self[person]


SECRETS = Known({PERSON: Secret(b"p" * 32), 8: Secret(b"q" * 32)})


def layer(which: Layer, *versions: int, scope: UUID = SCOPE) -> LayerCipher:
    start = 0 if which is Layer.PLATFORM else 100
    return LayerCipher(scope, which, {version: Secret(bytes([start + version]) * 32) for version in versions})


def cipher(
    scope: UUID = SCOPE,
    versions: tuple[int, ...] = (1,),
    customer: tuple[int, ...] = (1,),
    index: bytes = INDEX,
    *,
    secrets: Known = SECRETS,
) -> ScopeCipher:
    inner = Held(layer(Layer.CUSTOMER, *customer, scope=scope))
    whole = ScopeCipher(scope, layer(Layer.PLATFORM, *versions, scope=scope), Secret(index), inner, persons=secrets)
    return whole.for_person(PERSON).for_purpose(PURPOSE)


def first_format(version: int, table: str, column: str, plaintext: bytes) -> bytes:
    """An envelope as they were before there were layers."""
    header, nonce = b"\x01" + version.to_bytes(4, "big"), os.urandom(12)
    context = b"strongroom envelope\0" + SCOPE.bytes + f"{table}\0{column}\0".encode() + ROW + header
    return header + nonce + AESGCM(bytes([version]) * 32).encrypt(nonce, plaintext, context)


def certain(error: BaseException) -> StrongroomError:
    """The error itself, or what it comes to when there is no younger key."""
    if isinstance(error, KeysChanged):
        assert error.otherwise is not None
        return error.otherwise()
    assert isinstance(error, StrongroomError)
    return error


@pytest.mark.parametrize(("table", "column"), ALL_PLACES)
@given(plaintext=st.binary(max_size=2000), row=st.binary(min_size=16, max_size=32))
def test_what_is_sealed_opens_in_its_place(table: str, column: str, plaintext: bytes, row: bytes) -> None:
    envelope = cipher().seal(table, column, row, plaintext)
    assert cipher().open(table, column, row, envelope) == plaintext
    assert len(envelope) == ALL_PLACES[table, column] + len(plaintext)
    assert not plaintext or len(plaintext) < 4 or plaintext not in envelope


@pytest.mark.parametrize(("table", "column"), ALL_PLACES)
def test_an_envelope_opens_nowhere_else(table: str, column: str) -> None:
    envelope = cipher().seal(table, column, ROW, b"x")
    elsewhere = [
        (UUID(int=8), table, column, ROW),
        (SCOPE, "instructions", column, ROW),
        (SCOPE, table, "other", ROW),
        (SCOPE, table, column, b"R" * 16),
        (SCOPE, table, column, ROW + b"r"),
        (SCOPE, table + column[0], column[1:], ROW),
    ]
    for scope, other_table, other_column, row in elsewhere:
        with pytest.raises(Broken) as refused:
            cipher(scope).open(other_table, other_column, row, envelope)
        assert refused.value.code == "ENVELOPE_BROKEN"


@pytest.mark.parametrize(("table", "column"), ALL_PLACES)
@given(position=st.integers(0, 200), change=st.integers(1, 255), length=st.integers(0, 200))
def test_an_altered_or_cut_envelope_is_refused(
    table: str, column: str, position: int, change: int, length: int
) -> None:
    envelope = bytearray(cipher().seal(table, column, ROW, b"12345678"))
    cut = bytes(envelope[: length % len(envelope)])
    envelope[position % len(envelope)] ^= change
    for wrong in (bytes(envelope), cut):
        with pytest.raises((Broken, KeysChanged)) as refused:
            cipher().open(table, column, ROW, wrong)
        assert certain(refused.value).code == "ENVELOPE_BROKEN"


def test_another_version_of_the_same_key_slot_is_refused() -> None:
    """A header that names another version, be it one that there is, doesn't open: version and key are bound."""
    both = cipher(versions=(1, 2))
    old = cipher(versions=(1,)).seal("orders", "sealed", ROW, b"x")
    new = both.seal("orders", "sealed", ROW, b"x")
    assert (version_of(old), version_of(new)) == (1, 2)
    for header, rest in ((new, old), (old, new)):
        with pytest.raises(Broken):
            both.open("orders", "sealed", ROW, header[:HEADER_BYTES] + rest[HEADER_BYTES:])
    relabelled = old[:2] + new[2:6] + old[6:]
    with pytest.raises(Broken):
        both.open("orders", "sealed", ROW, relabelled)


def test_a_layer_does_not_open_the_other_one_s_envelopes() -> None:
    key = {1: Secret(b"k" * 32)}
    outer, inner = LayerCipher(SCOPE, Layer.PLATFORM, key), LayerCipher(SCOPE, Layer.CUSTOMER, key)
    place = context_of(SCOPE, Layer.PLATFORM, "financial_instruments", "sensitive")
    assert inner.open(place, ROW, outer.seal(place, ROW, b"x")) is None
    assert outer.open(place, ROW, outer.seal(place, ROW, b"x")) == b"x"


def test_an_envelope_commits_to_its_key() -> None:
    """A ciphertext that opens under two keys can be made of AES-GCM; the header keeps it from being tried with both."""
    first, second = (derive(SCOPE, Layer.PLATFORM, 1, Secret(bytes([n]) * 32)) for n in (1, 2))
    assert first[32:] != second[32:]
    one = LayerCipher(SCOPE, Layer.PLATFORM, {1: Secret(b"\x01" * 32)})
    place = context_of(SCOPE, Layer.PLATFORM, "orders", "sealed")
    header, nonce = one.header[:6] + second[32:], b"n" * 12
    forged = header + nonce + AESGCM(first[:32]).encrypt(nonce, b"x", place + ROW + header)
    assert one.open(place, ROW, forged) is None
    genuine = one.header + nonce + AESGCM(first[:32]).encrypt(nonce, b"x", place + ROW + one.header)
    assert one.open(place, ROW, genuine) == b"x"


def test_old_versions_are_opened_and_the_newest_seals() -> None:
    old = cipher(versions=(1,)).seal("orders", "sealed", ROW, b"x")
    both = cipher(versions=(1, 2))
    assert both.open("orders", "sealed", ROW, old) == b"x"


@pytest.mark.parametrize(
    ("place", "versions", "customer"),
    [
        (("orders", "sealed"), (1, 2), (1,)),
        (("payment_files", "sealed"), (1,), (1, 2)),
        (("financial_instruments", "sensitive"), (1,), (1, 2)),
    ],
)
def test_a_younger_key_is_told_from_an_altered_envelope(
    place: tuple[str, str], versions: tuple[int, ...], customer: tuple[int, ...]
) -> None:
    """It may have come after the operation had begun; once that is known not to be so, the envelope is broken."""
    old, younger = cipher(), cipher(versions=versions, customer=customer).seal(*place, ROW, b"x")
    for attempt in (old.open, old.check, old.reseal):
        with pytest.raises(KeysChanged) as refused:
            attempt(*place, ROW, younger)
        assert refused.value.code == "KEYS_CHANGING"
    assert certain(refused.value).code == "ENVELOPE_BROKEN"
    with pytest.raises(Broken):
        old.open(*place, ROW, younger)
    with pytest.raises(Broken):
        old.for_purpose(Purpose.EXECUTION).open(*place, ROW, younger)
    with pytest.raises(KeysChanged):
        cipher().open(*place, ROW, younger)


@pytest.mark.parametrize(("table", "column"), PLACES)
def test_envelopes_from_before_the_layers_open_and_are_resealed(table: str, column: str) -> None:
    old = first_format(1, table, column, b"x")
    assert cipher().open(table, column, ROW, old) == b"x"
    fresh = cipher().reseal(table, column, ROW, old)
    assert fresh is not None
    assert fresh[:2] == b"\x02P"
    assert cipher().open(table, column, ROW, fresh) == b"x"
    with pytest.raises(Broken):
        cipher().open(table, column, b"R" * 16, old)


def test_resealing_touches_only_what_is_behind() -> None:
    plain = cipher().seal("orders", "sealed", ROW, b"x")
    both = cipher().seal("financial_instruments", "sensitive", ROW, b"y")
    assert cipher().reseal("orders", "sealed", ROW, plain) is None
    assert cipher().reseal("financial_instruments", "sensitive", ROW, both) is None
    newer = cipher(versions=(1, 2))
    for place, envelope, content in (("orders", plain, b"x"), ("financial_instruments", both, b"y")):
        column = "sealed" if place == "orders" else "sensitive"
        fresh = newer.reseal(place, column, ROW, envelope)
        assert fresh is not None
        assert version_of(fresh) == 2
        assert newer.reseal(place, column, ROW, fresh) is None
        assert cipher(versions=(2,)).open(place, column, ROW, fresh) == content
    inner = cipher(customer=(1, 2))
    assert inner.reseal("orders", "sealed", ROW, plain) is None
    fresh = inner.reseal("financial_instruments", "sensitive", ROW, both)
    assert fresh is not None
    assert cipher(customer=(2,)).open("financial_instruments", "sensitive", ROW, fresh) == b"y"
    with pytest.raises(KeysChanged):
        cipher(customer=(1,)).open("financial_instruments", "sensitive", ROW, fresh)


def test_without_the_customer_s_key_the_platform_opens_only_what_is_its_own() -> None:
    envelope = cipher().seal("financial_instruments", "sensitive", ROW, b"secret")
    shut = ScopeCipher(SCOPE, layer(Layer.PLATFORM, 1, 2), Secret(INDEX), Shut(1, "hsm", Reason.DISABLED)).for_purpose(
        PURPOSE
    )
    assert shut.open("orders", "sealed", ROW, cipher().seal("orders", "sealed", ROW, b"x")) == b"x"
    for attempt in (
        lambda: shut.open("financial_instruments", "sensitive", ROW, envelope),
        lambda: shut.seal("financial_instruments", "sensitive", ROW, b"x"),
    ):
        with pytest.raises(Unavailable) as refused:
            attempt()
        assert refused.value.code == "KEY_UNAVAILABLE"
    # The platform's layer is renewed around it all the same, and what is inside stays as it is.
    fresh = shut.reseal("financial_instruments", "sensitive", ROW, envelope)
    assert fresh is not None
    assert cipher(versions=(2,)).open("financial_instruments", "sensitive", ROW, fresh) == b"secret"


PERSONAL = ("financial_instruments", "sensitive", ROW)


def test_what_is_one_person_s_alone_is_sealed_for_somebody() -> None:
    with pytest.raises(LookupError, match="one person's alone"):
        cipher_for_nobody().seal(*PERSONAL, b"x")
    assert cipher_for_nobody().open(*PERSONAL, cipher().seal(*PERSONAL, b"x")) == b"x"
    # A cipher that is for somebody seals everything else as ever.
    plain = cipher().seal("orders", "sealed", ROW, b"x")
    assert cipher_for_nobody().open("orders", "sealed", ROW, plain) == b"x"


def test_without_a_person_s_secret_nothing_of_theirs_opens_and_others_do() -> None:
    mine, theirs = cipher().seal(*PERSONAL, b"mine"), cipher().for_person(8).seal(*PERSONAL, b"theirs")
    left = cipher(secrets=gone_secrets())
    assert left.open(*PERSONAL, theirs) == b"theirs"
    assert left.is_lost(*PERSONAL, mine)
    assert not left.is_lost(*PERSONAL, theirs)
    for attempt in (lambda: left.open(*PERSONAL, mine), lambda: left.for_person(PERSON).seal(*PERSONAL, b"x")):
        with pytest.raises(Unavailable) as refused:
            attempt()
        assert refused.value.code == "KEY_UNAVAILABLE"
        assert refused.value.failures[0].values["reason"] == "GONE"


def test_what_is_at_hand_for_a_person_falls_at_once_with_their_secret() -> None:
    secrets = Known({PERSON: SECRETS[PERSON]})
    used = cipher(secrets=secrets)
    envelope = used.seal(*PERSONAL, b"x")
    assert used.open(*PERSONAL, envelope) == b"x"
    del secrets[PERSON]
    with pytest.raises(Unavailable) as refused:
        used.open(*PERSONAL, envelope)
    assert refused.value.failures[0].values["reason"] == "GONE"
    secrets[PERSON] = SECRETS[8]
    with pytest.raises(Broken):
        used.open(*PERSONAL, envelope)
    secrets[PERSON] = SECRETS[PERSON]
    assert used.open(*PERSONAL, envelope) == b"x"


def test_what_is_at_hand_for_persons_is_bounded_and_ends_with_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envelopes, "MAX_PERSONS", 2)
    secrets = Known({person: Secret(bytes([person]) * 32) for person in range(3)})
    inner = layer(Layer.CUSTOMER, 1)
    for person, opened in ((0, 1), (0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (0, 4)):
        assert inner.for_person(1, person, secrets) is not None
        assert secrets.opened == opened
    kept = weakref.ref(inner.for_person(1, 0, secrets))
    gc.disable()
    try:
        assert kept() is not None
        del inner
        assert kept() is None
    finally:
        gc.enable()


def test_neither_another_person_s_secret_nor_another_s_data_key_opens_it() -> None:
    envelope = cipher().seal(*PERSONAL, b"x")
    exchanged = cipher(secrets=Known({PERSON: SECRETS[8]}))
    other = ScopeCipher(
        SCOPE,
        layer(Layer.PLATFORM, 1),
        Secret(INDEX),
        Held(LayerCipher(SCOPE, Layer.CUSTOMER, {1: Secret(b"other" * 6 + b"!!")})),
        persons=SECRETS,
    )
    for wrong in (exchanged, other.for_purpose(PURPOSE)):
        with pytest.raises(Broken) as refused:
            wrong.open(*PERSONAL, envelope)
        assert refused.value.code == "ENVELOPE_BROKEN"


def test_resealing_keeps_whose_it_is() -> None:
    envelope = cipher().seal(*PERSONAL, b"x")
    newer = cipher(versions=(1, 2), customer=(1, 2)).for_person(8)
    fresh = newer.reseal(*PERSONAL, envelope)
    assert fresh is not None
    assert newer.reseal(*PERSONAL, fresh) is None
    assert cipher(versions=(2,), customer=(2,), secrets=gone_secrets()).is_lost(*PERSONAL, fresh)


def test_what_is_lost_with_a_person_is_carried_along_as_it_is() -> None:
    envelope = cipher().seal(*PERSONAL, b"x")
    assert cipher(secrets=gone_secrets()).reseal(*PERSONAL, envelope) is None
    moved = cipher(versions=(1, 2), customer=(1, 2), secrets=gone_secrets()).reseal(*PERSONAL, envelope)
    assert moved is not None
    assert cipher(versions=(2,), customer=(1,)).open(*PERSONAL, moved) == b"x"


def test_what_was_nobody_s_becomes_somebody_s() -> None:
    envelope = cipher_for_nobody().seal_for_nobody(*PERSONAL, b"x")
    assert not cipher().is_personal(*PERSONAL, envelope)
    assert cipher_for_nobody().reseal(*PERSONAL, envelope) is None
    fresh = cipher().reseal(*PERSONAL, envelope)
    assert fresh is not None
    assert cipher().is_personal(*PERSONAL, fresh)
    assert cipher().open(*PERSONAL, fresh) == b"x"
    assert cipher(secrets=Known()).is_lost(*PERSONAL, fresh)


def cipher_for_nobody() -> ScopeCipher:
    inner = Held(layer(Layer.CUSTOMER, 1))
    whole = ScopeCipher(SCOPE, layer(Layer.PLATFORM, 1), Secret(INDEX), inner, persons=SECRETS)
    return whole.for_purpose(PURPOSE)


def gone_secrets() -> Known:
    return Known({8: SECRETS[8]})


def test_no_nonce_comes_twice() -> None:
    one = layer(Layer.PLATFORM, 1)
    count = (1 << 16) * 2 + 10
    found = {one.seal(b"", b"", b"")[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES] for _ in range(count)}
    assert len(found) == count
    assert len({nonce[:10] for nonce in found}) == 3


def test_a_forked_process_does_not_go_on_with_its_parent_s_nonces() -> None:
    one = layer(Layer.PLATFORM, 1)
    one.seal(b"", b"", b"")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, one.seal(b"", b"", b"")[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    theirs, ours = os.read(reading, NONCE_BYTES), one.seal(b"", b"", b"")[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
    os.close(reading)
    os.close(writing)
    assert theirs[:10] != ours[:10]


@given(st.text(max_size=60))
def test_the_index_is_an_hmac_of_the_column(value: str) -> None:
    column_key = hmac.digest(INDEX, b"orders\0order_id", hashlib.sha256)
    expected = hmac.digest(column_key, value.encode(), hashlib.sha256)[:16]
    assert cipher().index("orders", "order_id", value) == expected


def test_the_index_tells_scopes_and_columns_apart() -> None:
    one, other = cipher(), cipher(index=b"j" * 32)
    found = {one.index("a", "b", "v"), one.index("a", "c", "v"), one.index("b", "b", "v"), other.index("a", "b", "v")}
    assert len(found) == 4


def test_a_scope_without_keys_does_nothing() -> None:
    none = NoCipher()
    account = ScopeCipher(SCOPE, layer(Layer.PLATFORM, 1), Secret(INDEX))
    for attempt in (
        lambda: none.seal("t", "c", ROW, b""),
        lambda: none.open("t", "c", ROW, b""),
        lambda: none.index("t", "c", ""),
        lambda: account.seal("financial_instruments", "sensitive", ROW, b""),
    ):
        with pytest.raises(Broken) as refused:
            attempt()
        assert refused.value.code == "DATA_KEY_MISSING"

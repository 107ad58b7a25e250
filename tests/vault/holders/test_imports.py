"""Keys that customers bring: wrapped by others' tools, taken once, and refused without saying why."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Conflict, Invalid, NotFound
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import FileHolder, Imports, KeyImport, WrappingAlgorithm, imports
from strongroom.vault.holders.imports import MAX_ATTEMPTS

OWNER, STRANGER = UUID(int=1), UUID(int=2)
KEY = bytes(range(32))
KWP, OAEP = WrappingAlgorithm.RSA_AES_KEY_WRAP_SHA_256, WrappingAlgorithm.RSAES_OAEP_SHA_256
SHA256_OAEP = padding.OAEP(padding.MGF1(SHA256()), SHA256(), None)


@pytest.fixture(scope="module")
def pair() -> rsa.RSAPrivateKey:
    """One key pair for all tests but one, since making one takes a second."""
    return rsa.generate_private_key(65537, 4096)


@pytest.fixture
def inbox(
    folder: Path, file_holder: FileHolder, clock: ManualClock, pair: rsa.RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> Imports:
    monkeypatch.setattr(imports.rsa, "generate_private_key", lambda **_: pair)
    return Imports(folder, file_holder, clock)


@pytest.fixture
async def begun(inbox: Imports) -> AsyncIterator[KeyImport]:
    yield await inbox.begin(OWNER)


def public(begun: KeyImport) -> rsa.RSAPublicKey:
    found = load_pem_public_key(begun.public_key.encode())
    assert isinstance(found, rsa.RSAPublicKey)
    return found


def wrapped(begun: KeyImport, key: bytes = KEY, algorithm: WrappingAlgorithm = KWP) -> bytes:
    if algorithm is OAEP:
        return public(begun).encrypt(key, SHA256_OAEP)
    temporary = os.urandom(32)
    return public(begun).encrypt(temporary, SHA256_OAEP) + keywrap.aes_key_wrap_with_padding(temporary, key)


@pytest.mark.parametrize("algorithm", list(WrappingAlgorithm))
async def test_a_key_comes_in(inbox: Imports, begun: KeyImport, algorithm: WrappingAlgorithm) -> None:
    brought = await inbox.finish(OWNER, begun.token, algorithm, wrapped(begun, algorithm=algorithm))
    assert brought.reveal() == KEY


async def test_the_key_pair_is_a_real_one(folder: Path, file_holder: FileHolder, clock: ManualClock) -> None:
    inbox = Imports(folder, file_holder, clock)
    first, second = await inbox.begin(OWNER), await inbox.begin(OWNER)
    assert public(first).key_size == 4096
    assert public(first).public_numbers() != public(second).public_numbers()
    assert first.expires_at - clock.now() == timedelta(hours=24)
    assert (await inbox.finish(OWNER, second.token, KWP, wrapped(second))).reveal() == KEY
    with pytest.raises(Invalid):
        await inbox.finish(OWNER, first.token, KWP, wrapped(second))


async def test_openssl_wraps_a_key_as_the_manual_says(inbox: Imports, begun: KeyImport, tmp_path: Path) -> None:
    """Somebody else's tool, with the commands of docs/keys.md."""
    manual = (Path(__file__).parents[3] / "docs" / "keys.md").read_text("utf-8")
    commands = manual.partition("<!-- openssl -->\n```sh\n")[2].partition("```")[0]
    assert "openssl" in commands
    (tmp_path / "import.pem").write_text(begun.public_key)
    (tmp_path / "key.bin").write_bytes(KEY)
    shell = ["bash", "-euc", commands]
    await asyncio.to_thread(subprocess.run, shell, cwd=tmp_path, check=True, timeout=60, capture_output=True)
    blob = (tmp_path / "wrapped.bin").read_bytes()
    assert len(blob) == 512 + 40
    assert (await inbox.finish(OWNER, begun.token, KWP, blob)).reveal() == KEY


async def test_an_import_takes_one_key(inbox: Imports, begun: KeyImport) -> None:
    blob = wrapped(begun)
    results = await asyncio.gather(
        *(inbox.finish(OWNER, begun.token, KWP, blob) for _ in range(4)), return_exceptions=True
    )
    assert len([result for result in results if isinstance(result, Secret)]) == 1
    codes = [result.code for result in results if isinstance(result, Conflict)]
    assert codes == ["IMPORT_USED"] * 3
    with pytest.raises(Conflict) as refused:
        await inbox.finish(OWNER, begun.token, KWP, blob)
    assert refused.value.code == "IMPORT_USED"


async def test_what_waits_is_sealed_and_what_has_ended_is_gone(
    folder: Path, inbox: Imports, begun: KeyImport, pair: rsa.RSAPrivateKey
) -> None:
    path = folder / "imports" / begun.token
    assert path.stat().st_mode & 0o777 == 0o600
    secret = pair.private_numbers().p.to_bytes(256, "big")[-64:]
    assert secret not in path.read_bytes()
    await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
    assert b'"sealed":""' in path.read_bytes()


async def test_an_import_is_the_owners(inbox: Imports, begun: KeyImport) -> None:
    for owner, token in ((STRANGER, begun.token), (OWNER, "0" * 32), (OWNER, "../x"), (OWNER, ""), (OWNER, "A" * 32)):
        with pytest.raises(NotFound) as refused:
            await inbox.finish(owner, token, KWP, wrapped(begun))
        assert refused.value.code == "IMPORT_NOT_FOUND"
    assert (await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))).reveal() == KEY


async def test_an_import_lives_a_day(inbox: Imports, begun: KeyImport, clock: ManualClock, folder: Path) -> None:
    clock.advance(timedelta(hours=24))
    for _ in range(2):
        with pytest.raises(Conflict) as refused:
            await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
        assert refused.value.code == "IMPORT_EXPIRED"
    assert b'"sealed":""' in (folder / "imports" / begun.token).read_bytes()


async def test_what_ended_is_forgotten_after_a_week(
    inbox: Imports, begun: KeyImport, clock: ManualClock, folder: Path
) -> None:
    damaged = folder / "imports" / ("d" * 32)
    damaged.touch(0o600)
    damaged.write_bytes(b"cut")
    clock.advance(timedelta(hours=25))
    second = await inbox.begin(OWNER)
    assert not damaged.exists()
    assert b'"sealed":""' in (folder / "imports" / begun.token).read_bytes()
    clock.advance(timedelta(days=7))
    await inbox.begin(OWNER)
    assert not (folder / "imports" / begun.token).exists()
    with pytest.raises(Conflict):
        await inbox.finish(OWNER, second.token, KWP, wrapped(second))


async def test_a_clock_that_goes_back_opens_nothing_again(inbox: Imports, begun: KeyImport, clock: ManualClock) -> None:
    clock.advance(timedelta(hours=24))
    with pytest.raises(Conflict):
        await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
    clock.advance(timedelta(hours=-24))
    with pytest.raises(Conflict) as refused:
        await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
    assert refused.value.code == "IMPORT_EXPIRED"


def bad_ones(begun: KeyImport) -> dict[str, tuple[WrappingAlgorithm, bytes]]:
    good, direct = wrapped(begun), wrapped(begun, algorithm=OAEP)
    temporary = os.urandom(32)
    head = public(begun).encrypt(temporary, SHA256_OAEP)
    short_head = public(begun).encrypt(temporary[:16], SHA256_OAEP)
    old = SHA1()  # noqa: S303  it has to be refused
    sha1 = public(begun).encrypt(temporary, padding.OAEP(padding.MGF1(old), old, None))
    tail = keywrap.aes_key_wrap_with_padding(temporary, KEY)
    return {
        "empty": (KWP, b""),
        "cut head": (KWP, good[:300]),
        "no tail": (KWP, good[:512]),
        "cut tail": (KWP, good[:-1]),
        "longer": (KWP, good + b"\0"),
        "altered head": (KWP, bytes([good[0] ^ 1]) + good[1:]),
        "altered tail": (KWP, good[:-1] + bytes([good[-1] ^ 1])),
        "zeros": (KWP, bytes(552)),
        "larger than the modulus": (KWP, b"\xff" * 552),
        "sha-1": (KWP, sha1 + tail),
        "aes-128 in between": (KWP, short_head + keywrap.aes_key_wrap_with_padding(temporary[:16], KEY)),
        "without padding": (KWP, head + keywrap.aes_key_wrap(temporary, KEY)),
        "key of 16": (KWP, head + keywrap.aes_key_wrap_with_padding(temporary, KEY[:16])),
        "key of 31": (KWP, head + keywrap.aes_key_wrap_with_padding(temporary, KEY[:31])),
        "key of 48": (KWP, head + keywrap.aes_key_wrap_with_padding(temporary, KEY + KEY[:16])),
        "direct, 16": (OAEP, wrapped(begun, KEY[:16], OAEP)),
        "direct, 33": (OAEP, wrapped(begun, KEY + b"\0", OAEP)),
        "direct, cut": (OAEP, direct[:-1]),
        "direct, longer": (OAEP, direct + b"\0"),
        "in the other way": (OAEP, good),
        "in the other way too": (KWP, direct),
        "megabyte": (KWP, bytes(1 << 20)),
    }


async def test_every_bad_blob_gets_the_same_answer(
    inbox: Imports, begun: KeyImport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MAX_ATTEMPTS", 100)
    said: dict[WrappingAlgorithm, set[tuple[str, str]]] = {KWP: set(), OAEP: set()}
    for algorithm, blob in bad_ones(begun).values():
        with pytest.raises(Invalid) as refused:
            await inbox.finish(OWNER, begun.token, algorithm, blob)
        said[algorithm].add((refused.value.code, str(refused.value)))
        assert refused.value.__cause__ is None
    assert all(len(answers) == 1 for answers in said.values())
    assert {code for answers in said.values() for code, _ in answers} == {"WRAPPED_KEY_INVALID"}
    assert (await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))).reveal() == KEY


async def test_attempts_are_counted(inbox: Imports, begun: KeyImport) -> None:
    for _ in range(MAX_ATTEMPTS):
        with pytest.raises(Invalid):
            await inbox.finish(OWNER, begun.token, KWP, bytes(552))
    with pytest.raises(Conflict) as refused:
        await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
    assert refused.value.code == "IMPORT_ATTEMPTS_USED_UP"


async def test_imports_under_way_are_limited(inbox: Imports, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "MAX_OPEN", 3)
    begun = [await inbox.begin(OWNER) for _ in range(3)]
    with pytest.raises(Conflict) as refused:
        await inbox.begin(OWNER)
    assert refused.value.code == "TOO_MANY_IMPORTS"
    await inbox.begin(STRANGER)
    await inbox.finish(OWNER, begun[0].token, KWP, wrapped(begun[0]))
    await inbox.begin(OWNER)


async def test_an_import_whose_root_key_was_ended_is_over(
    inbox: Imports, begun: KeyImport, file_holder: FileHolder
) -> None:
    await file_holder.rotate_root()
    assert (await inbox.finish(OWNER, (await inbox.begin(OWNER)).token, KWP, wrapped(begun))).reveal() == KEY
    await file_holder.end_root_version(1)
    with pytest.raises(Conflict) as refused:
        await inbox.finish(OWNER, begun.token, KWP, wrapped(begun))
    assert refused.value.code == "IMPORT_EXPIRED"


async def test_what_was_brought_is_kept_and_works(inbox: Imports, begun: KeyImport, file_holder: FileHolder) -> None:
    await file_holder.bring("brought", await inbox.finish(OWNER, begun.token, KWP, wrapped(begun)))
    sealed = await file_holder.wrap("brought", Secret(bytes(32)), b"context")
    assert (await file_holder.unwrap("brought", sealed, b"context")).reveal() == bytes(32)

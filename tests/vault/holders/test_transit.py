"""The transit engine of a real OpenBao, and what a server in its place could answer."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from strongroom.kernel.errors import Broken, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import HeldState, KeyUnavailable, Reason
from strongroom.vault.holders.transit import TransitHolder
from tests.certificates import Authority
from tests.outbound.scripted import Peer, Script, scripted
from tests.rails.simulator.process import free_port
from tests.vault.holders.conftest import Bao

KEY = bytes(range(32))
CONTEXT = b"\x00context\xff"


@pytest.fixture
def name(bao: Bao) -> str:
    return bao.make(f"key-{os.urandom(4).hex()}")


@pytest.fixture
async def holder(bao: Bao) -> AsyncIterator[TransitHolder]:
    found = bao.holder()
    yield found
    await found.close()


def answering(status: int, body: bytes) -> Script:
    """A server that says the same to everything."""

    async def script(peer: Peer) -> None:
        while await peer.request():
            await peer.say(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)) + body)

    return script


async def reason_of(holder: TransitHolder, name: str = "any") -> Reason:
    with pytest.raises(KeyUnavailable) as refused:
        await holder.wrap(name, Secret(KEY), CONTEXT)
    await holder.close()
    return refused.value.reason


async def test_a_key_rotated_there_opens_what_it_wrapped_before(bao: Bao, holder: TransitHolder, name: str) -> None:
    old = await holder.wrap(name, Secret(KEY), CONTEXT)
    bao.ask("POST", f"transit/keys/{name}/rotate")
    new = await holder.wrap(name, Secret(KEY), CONTEXT)
    assert (old[:9], new[:9]) == (b"vault:v1:", b"vault:v2:")
    for wrapped in (old, new):
        assert (await holder.unwrap(name, wrapped, CONTEXT)).reveal() == KEY


async def test_wrapping_makes_no_key_by_mistake(bao: Bao, holder: TransitHolder) -> None:
    """The engine itself would make one for any name."""
    missing = f"missing-{os.urandom(4).hex()}"
    with pytest.raises(KeyUnavailable) as refused:
        await holder.wrap(missing, Secret(KEY), CONTEXT)
    assert refused.value.reason is Reason.GONE
    assert (await holder.describe(missing)).state is HeldState.GONE


async def test_keys_of_another_kind_are_told_and_not_used(bao: Bao, holder: TransitHolder) -> None:
    for kind in ("aes128-gcm96", "chacha20-poly1305", "rsa-4096"):
        name = bao.make(f"key-{os.urandom(4).hex()}", kind)
        assert (await holder.describe(name)).algorithm == kind
        with pytest.raises(KeyUnavailable) as refused:
            await holder.wrap(name, Secret(KEY), CONTEXT)
        assert refused.value.reason is Reason.UNFIT


async def test_an_exportable_key_is_told(bao: Bao, holder: TransitHolder) -> None:
    assert (await holder.describe(bao.make(f"key-{os.urandom(4).hex()}", exportable=True))).is_extractable
    assert (await holder.describe(bao.make(f"key-{os.urandom(4).hex()}", allow_plaintext_backup=True))).is_extractable


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", "a b", "a?b", "-a", "x" * 129, "ä"])
async def test_names_that_lead_elsewhere_are_refused(holder: TransitHolder, name: str) -> None:
    with pytest.raises(Invalid) as refused:
        await holder.describe(name)
    assert refused.value.code == "KEY_REFERENCE_INVALID"


async def test_a_token_may_do_only_what_its_policy_says(bao: Bao, name: str, tmp_path: Path) -> None:
    """The policy in the manual suffices; without one of its lines it doesn't. A new token is taken from the file."""
    paths = {
        f"transit/keys/{name}": "read",
        f"transit/encrypt/{name}": "update",
        f"transit/decrypt/{name}": "update",
    }
    token_file = tmp_path / "token"
    token_file.touch(0o600)

    def give(lines: dict[str, str]) -> None:
        text = "\n".join(f'path "{path}" {{ capabilities = ["{may}"] }}' for path, may in lines.items())
        bao.ask("PUT", "sys/policies/acl/holder", policy=text)
        token_file.write_text(bao.ask("POST", "auth/token/create", policies=["holder"])["auth"]["client_token"])

    holder = bao.holder(token_file=token_file)
    give(paths)
    wrapped = await holder.wrap(name, Secret(KEY), CONTEXT)
    assert (await holder.unwrap(name, wrapped, CONTEXT)).reveal() == KEY
    give({path: may for path, may in paths.items() if "decrypt" not in path})
    with pytest.raises(KeyUnavailable) as refused:
        await holder.unwrap(name, wrapped, CONTEXT)
    assert refused.value.reason is Reason.DENIED
    token_file.write_text("no such token")
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(name)
    assert refused.value.reason is Reason.DENIED
    assert "no such token" not in str(refused.value)
    token_file.unlink()
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(name)
    assert refused.value.reason is Reason.DENIED
    token_file.touch(0o644)
    with pytest.raises(Broken) as unsafe:
        await holder.describe(name)
    assert unsafe.value.code == "KEY_FILE_UNSAFE"
    await holder.close()


async def test_a_mount_that_is_not_there_is_no_destroyed_key(bao: Bao) -> None:
    assert await reason_of(bao.holder(mount="elsewhere")) is Reason.AWAY


async def test_a_server_that_is_frozen_or_gone(bao: Bao, name: str) -> None:
    server = psutil.Process(bao.process.pid)
    holder = bao.holder(limit_s=0.5)
    assert (await holder.describe(name)).state is HeldState.ENABLED
    server.suspend()
    try:
        assert await reason_of(holder, name) is Reason.SLOW
    finally:
        server.resume()
    assert await reason_of(bao.holder(url=f"https://127.0.0.1:{free_port()}")) is Reason.AWAY


async def test_a_server_that_nobody_vouches_for_gets_nothing(bao: Bao, tmp_path: Path) -> None:
    assert await reason_of(bao.holder(ca_file=Authority(tmp_path).ca)) is Reason.AWAY


async def test_a_private_address_is_only_spoken_to_when_that_is_meant(bao: Bao) -> None:
    assert await reason_of(bao.holder(private=False)) is Reason.AWAY


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (503, b'{"errors":["Vault is sealed"]}', Reason.AWAY),
        (500, b"{}", Reason.AWAY),
        (429, b"{}", Reason.THROTTLED),
        (302, b"", Reason.AWAY),
        (200, b"<html>", Reason.NONSENSE),
        (200, b"{}", Reason.NONSENSE),
        (200, b'{"data":[]}', Reason.NONSENSE),
        (200, b'{"data":{"type":"aes256-gcm96","ciphertext":"vault:v1:x"}}', Reason.NONSENSE),
        (404, b"<html>not found</html>", Reason.AWAY),
        (200, b'{"data":"' + b"x" * 70_000 + b'"}', Reason.NONSENSE),
    ],
)
async def test_whatever_is_answered_has_its_reason(
    bao: Bao, tmp_path: Path, status: int, body: bytes, reason: Reason
) -> None:
    authority = Authority(tmp_path)
    tls: ssl.SSLContext = authority.issue("localhost").server_context()
    async with scripted(answering(status, body), tls) as server:
        holder = bao.holder(url=f"https://localhost:{server.port}", ca_file=authority.ca)
        assert await reason_of(holder) is reason


@pytest.mark.parametrize("plaintext", ["QUJD", "not base64!", ""])
async def test_a_plaintext_that_is_no_key_is_nonsense(bao: Bao, tmp_path: Path, plaintext: str) -> None:
    authority = Authority(tmp_path)
    tls = authority.issue("localhost").server_context()
    body = b'{"data":{"plaintext":"' + plaintext.encode() + b'"}}'
    async with scripted(answering(200, body), tls) as server:
        holder = bao.holder(url=f"https://localhost:{server.port}", ca_file=authority.ca)
        with pytest.raises(KeyUnavailable) as refused:
            await holder.unwrap("any", b"vault:v1:" + b"A" * 80, CONTEXT)
        assert refused.value.reason is Reason.NONSENSE
        await holder.close()

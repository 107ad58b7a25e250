"""The root key's file: its forms, its passphrase, and what is said when it is damaged."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.clock import ManualClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Conflict, Invalid, Refused
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import ROOT, FileHolder, KeyUnavailable, Reason, find_passphrase, is_protected, root
from strongroom.vault.holders.root import RootFile

KEY = bytes(range(32))
PASSPHRASE: Secret[str] = Secret("correct horse battery staple")
OTHER: Secret[str] = Secret("an entirely different one")


def holder(folder: Path, passphrase: Secret[str] | None = None) -> FileHolder:
    from strongroom.kernel.clock import SystemClock

    return FileHolder(folder, Environment.SANDBOX, SystemClock(), passphrase)


async def test_it_is_made_once(folder: Path) -> None:
    wrapped = await holder(folder).wrap(ROOT, Secret(KEY), b"")
    assert (await holder(folder).unwrap(ROOT, wrapped, b"")).reveal() == KEY


async def test_a_passphrase_protects_it(folder: Path) -> None:
    first = holder(folder, PASSPHRASE)
    wrapped = await first.wrap(ROOT, Secret(KEY), b"")
    assert is_protected(folder / "master.key")
    assert (await holder(folder, PASSPHRASE).unwrap(ROOT, wrapped, b"")).reveal() == KEY
    with pytest.raises(Refused) as refused:
        holder(folder)
    assert refused.value.code == "PASSPHRASE_IS_REQUIRED"
    assert "STRONGROOM_KEYS_PASSPHRASE" in str(refused.value)
    with pytest.raises(Refused) as refused:
        holder(folder, OTHER)
    assert refused.value.code == "PASSPHRASE_WRONG"


async def test_a_protected_file_has_the_documented_layout(
    folder: Path, shipped_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opened with nothing but hashlib's scrypt and the cipher library."""
    monkeypatch.setattr(root, "LOG2_N", shipped_cost)
    wrapped = await holder(folder, PASSPHRASE).wrap(ROOT, Secret(KEY), b"context")
    file = json.loads((folder / "master.key").read_bytes())
    scrypt = file["scrypt"]
    assert (scrypt["log2_n"], scrypt["r"], scrypt["p"]) == (17, 8, 1)
    derived = hashlib.scrypt(
        PASSPHRASE.reveal().encode(),
        salt=base64.b64decode(scrypt["salt"]),
        n=1 << 17,
        r=8,
        p=1,
        maxmem=1 << 28,
        dklen=32,
    )
    context = b"strongroom root key\0sandbox\0" + json.dumps(scrypt, separators=(",", ":")).encode()
    body = AESGCM(derived).decrypt(base64.b64decode(file["nonce"]), base64.b64decode(file["body"]), context)
    (version,) = json.loads(body)
    bound = b"strongroom wrapped key\0sandbox\0root\0" + wrapped[:5] + b"context"
    assert AESGCM(base64.b64decode(version["key"])).decrypt(wrapped[5:17], wrapped[17:], bound) == KEY


@pytest.mark.parametrize("first_form", [True, False])
async def test_a_key_in_clear_is_protected_from_the_first_passphrase_on(folder: Path, first_form: bool) -> None:
    path = folder / "master.key"
    if first_form:
        await asyncio.to_thread(folder.mkdir)
        path.touch(0o600)
        path.write_bytes(KEY)
    before = holder(folder)
    wrapped = await before.wrap(ROOT, Secret(KEY), b"")
    clear = KEY if first_form else base64.b64decode(json.loads(path.read_bytes())["body"])
    with path.open("rb") as kept_open:
        assert (await holder(folder, PASSPHRASE).unwrap(ROOT, wrapped, b"")).reveal() == KEY
        assert clear not in kept_open.read()  # the blocks on the disk are overwritten
    assert is_protected(path)
    assert clear not in path.read_bytes()
    assert (await before.unwrap(ROOT, wrapped, b"")).reveal() == KEY  # a process that runs goes on


async def test_the_passphrase_changes_and_goes(folder: Path) -> None:
    first = holder(folder, PASSPHRASE)
    wrapped = await first.wrap(ROOT, Secret(KEY), b"")
    await first.change_passphrase(OTHER)
    with pytest.raises(Refused):
        holder(folder, PASSPHRASE)
    assert (await holder(folder, OTHER).unwrap(ROOT, wrapped, b"")).reveal() == KEY
    await first.change_passphrase(None)
    assert not is_protected(folder / "master.key")
    assert (await holder(folder).unwrap(ROOT, wrapped, b"")).reveal() == KEY


async def test_rotations_keep_the_passphrase_and_reach_processes_that_run(folder: Path) -> None:
    first, second = holder(folder, PASSPHRASE), holder(folder, PASSPHRASE)
    await first.rotate_root()
    wrapped = await first.wrap(ROOT, Secret(KEY), b"")
    assert (await second.unwrap(ROOT, wrapped, b"")).reveal() == KEY
    assert is_protected(folder / "master.key")


async def test_a_process_that_runs_across_a_change_of_passphrase_says_when_it_is_lost(folder: Path) -> None:
    running, admin = holder(folder, PASSPHRASE), holder(folder, PASSPHRASE)
    await running.create("kept")
    old = await running.wrap(ROOT, Secret(KEY), b"")
    await admin.change_passphrase(OTHER)
    assert (await running.unwrap(ROOT, old, b"")).reveal() == KEY
    await admin.rotate_root()
    new = await admin.wrap(ROOT, Secret(KEY), b"")
    await admin.rewrap_kept()
    assert (await running.unwrap(ROOT, old, b"")).reveal() == KEY
    for use in (running.unwrap(ROOT, new, b""), running.wrap("kept", Secret(KEY), b"")):
        with pytest.raises(KeyUnavailable) as refused:
            await use
        assert refused.value.reason is Reason.AWAY
        assert "start this again" in str(refused.value)


@pytest.mark.parametrize("spoil", ["short", "long", "cut", "flipped", "no json", "empty"])
def test_a_damaged_file_is_called_damaged_and_left_alone(folder: Path, spoil: str) -> None:
    """Also under a passphrase: a wrong passphrase and a damaged file are told apart."""
    holder(folder, PASSPHRASE)
    path = folder / "master.key"
    good = path.read_bytes()
    at = good.index(b'"body":"') + 20
    path.write_bytes(
        {
            "short": KEY[:-1],
            "long": KEY + b"\n",
            "cut": good[:-10],
            "flipped": good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :],
            "no json": b"\xff" * 400,
            "empty": b"",
        }[spoil]
    )
    spoiled = path.read_bytes()
    with pytest.raises(Broken) as refused:
        holder(folder, PASSPHRASE)
    assert refused.value.code == "KEY_FILE_BROKEN"
    assert "backup" in str(refused.value)
    assert path.read_bytes() == spoiled


def test_a_file_that_others_may_read_is_refused(folder: Path) -> None:
    holder(folder)
    (folder / "master.key").chmod(0o644)
    with pytest.raises(Broken) as refused:
        holder(folder)
    assert refused.value.code == "KEY_FILE_UNSAFE"


def test_a_file_of_the_other_environment_is_refused(folder: Path, clock: ManualClock) -> None:
    holder(folder)
    with pytest.raises(Refused) as refused:
        FileHolder(folder, Environment.PRODUCTION, clock)
    assert refused.value.code == "OTHER_ENVIRONMENT"


def test_a_passphrase_that_can_be_guessed_is_refused(folder: Path) -> None:
    with pytest.raises(Invalid) as refused:
        holder(folder, Secret("short"))
    assert refused.value.code == "PASSPHRASE_TOO_SHORT"
    assert not (folder / "master.key").exists()


def test_parameters_that_nobody_wrote_are_not_followed(folder: Path) -> None:
    """A file that asks for 64 GiB would stop the machine."""
    holder(folder, PASSPHRASE)
    path = folder / "master.key"
    file = json.loads(path.read_bytes())
    file["scrypt"]["log2_n"] = 26
    file["digest"] = ""
    file["digest"] = base64.b64encode(
        hashlib.sha256(json.dumps(file, separators=(",", ":")).encode()).digest()
    ).decode()
    path.write_text(json.dumps(file, separators=(",", ":")))
    with pytest.raises(Broken) as refused:
        holder(folder, PASSPHRASE)
    assert "parameters" in str(refused.value)


def test_accents_may_be_written_in_either_way(folder: Path) -> None:
    holder(folder, Secret("fünf große Äpfel"))
    holder(folder, Secret("fu\u0308nf große A\u0308pfel"))


def test_versions_are_limited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root, "MAX_VERSIONS", 2)
    file = RootFile(folder / "master.key", Environment.SANDBOX)
    assert file.add_version() == 2
    with pytest.raises(Conflict) as refused:
        file.add_version()
    assert refused.value.code == "TOO_MANY_ROOT_VERSIONS"


def test_the_passphrase_comes_from_a_variable_or_a_file(tmp_path: Path) -> None:
    file = tmp_path / "passphrase"
    file.touch(0o600)
    file.write_text("from a file, blanks kept \n")
    assert find_passphrase({}) is None
    given = find_passphrase({"STRONGROOM_KEYS_PASSPHRASE": "from a variable"})
    assert given is not None
    assert given.reveal() == "from a variable"
    given = find_passphrase({"STRONGROOM_KEYS_PASSPHRASE_FILE": str(file)})
    assert given is not None
    assert given.reveal() == "from a file, blanks kept "
    with pytest.raises(Refused) as refused:
        find_passphrase({"STRONGROOM_KEYS_PASSPHRASE": "x", "STRONGROOM_KEYS_PASSPHRASE_FILE": str(file)})
    assert refused.value.code == "PASSPHRASE_GIVEN_TWICE"
    file.chmod(0o644)
    with pytest.raises(Broken) as unsafe:
        find_passphrase({"STRONGROOM_KEYS_PASSPHRASE_FILE": str(file)})
    assert unsafe.value.code == "KEY_FILE_UNSAFE"
    file.chmod(0o600)
    file.write_bytes(b"\xff\xfe")
    for name in (str(file), str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(Refused) as refused:
            find_passphrase({"STRONGROOM_KEYS_PASSPHRASE_FILE": name})
        assert refused.value.code == "PASSPHRASE_FILE_UNREADABLE"

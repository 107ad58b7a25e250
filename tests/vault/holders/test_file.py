"""The holder that every installation has: kept keys in files, and what survives what."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import AlreadyExists, Broken, Conflict, Invalid, NotFound, Refused, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import ROOT, FileHolder, HeldState, KeyUnavailable, Reason, _files, root_version
from strongroom.vault.records import first_data_key_context

KEY = bytes(range(32))
CONTEXT = b"context"


def another(folder: Path) -> FileHolder:
    """The same folder, as another process has it."""
    return FileHolder(folder, Environment.SANDBOX, SystemClock())


def first_form(folder: Path, key: bytes) -> None:
    """A root key as it was kept at first."""
    folder.mkdir()
    (folder / "master.key").touch(0o600)
    (folder / "master.key").write_bytes(key)


def every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow: writing fails as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_wrapped_key_has_the_documented_layout(folder: Path, clock: ManualClock) -> None:
    """Opened with nothing but the cipher library, from what the docstring of the module says."""
    first_form(folder, b"m" * 32)
    holder = FileHolder(folder, Environment.SANDBOX, clock)
    await holder.bring("kept", Secret(b"k" * 32))
    for reference, key in ((ROOT, b"m" * 32), ("kept", b"k" * 32)):
        wrapped = await holder.wrap(reference, Secret(KEY), CONTEXT)
        assert wrapped[:5] == b"\x01\x00\x00\x00\x01"
        bound = b"strongroom wrapped key\0sandbox\0" + reference.encode() + b"\0" + wrapped[:5] + CONTEXT
        assert AESGCM(key).decrypt(wrapped[5:17], wrapped[17:], bound) == KEY


async def test_the_master_key_of_before_goes_on_working(folder: Path, clock: ManualClock) -> None:
    scope = UUID(int=7)
    before, nonce = os.urandom(32), os.urandom(12)
    first_form(folder, before)
    context = first_data_key_context(Environment.SANDBOX, scope, "seal", 3)
    assert context == b"\0".join((b"strongroom data key", b"sandbox", scope.bytes, b"seal", (3).to_bytes(4, "big")))
    wrapped = nonce + AESGCM(before).encrypt(nonce, KEY, context)
    holder = FileHolder(folder, Environment.SANDBOX, clock)
    assert (await holder.unwrap(ROOT, wrapped, context)).reveal() == KEY
    assert root_version(wrapped) == 1
    assert (folder / "master.key").read_bytes() == before
    assert await holder.rotate_root() == 2
    assert (await another(folder).unwrap(ROOT, wrapped, context)).reveal() == KEY
    with pytest.raises(Broken):
        await holder.unwrap(ROOT, wrapped, context + b"x")


async def test_keys_are_kept_for_their_owner_alone(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.bring("kept", Secret(KEY))
    for path in (folder / "master.key", folder / "scope" / "kept.key"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for path in (folder, folder / "scope"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert KEY not in every_byte(folder)


async def test_another_process_sees_every_change_at_its_next_use(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    other = another(folder)
    wrapped = await other.wrap("kept", Secret(KEY), CONTEXT)
    await file_holder.disable("kept")
    with pytest.raises(KeyUnavailable) as refused:
        await other.unwrap("kept", wrapped, CONTEXT)
    assert refused.value.reason is Reason.DISABLED
    await file_holder.enable("kept")
    assert (await other.unwrap("kept", wrapped, CONTEXT)).reveal() == KEY
    await file_holder.destroy("kept")
    with pytest.raises(KeyUnavailable) as refused:
        await other.unwrap("kept", wrapped, CONTEXT)
    assert refused.value.reason is Reason.GONE


async def test_a_destroyed_key_is_off_the_disk_and_cannot_come_back(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    wrapped = await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    path = folder / "scope" / "kept.key"
    was = path.read_bytes()
    left = path.with_name(".kept.key.0011223344556677")
    left.write_bytes(was)  # as a change that was cut short leaves it
    await file_holder.destroy("kept")
    assert [found.name for found in (folder / "scope").iterdir()] == ["kept.gone"]
    await file_holder.destroy("kept")
    for change in (file_holder.create("kept"), file_holder.bring("kept", Secret(KEY)), file_holder.enable("kept")):
        with pytest.raises(Conflict) as refused:
            await change
        assert refused.value.code == "KEY_DESTROYED"
    path.touch(0o600)
    path.write_bytes(was)  # somebody restores the file by mistake
    for holder in (file_holder, another(folder)):
        with pytest.raises(KeyUnavailable) as gone:
            await holder.unwrap("kept", wrapped, CONTEXT)
        assert gone.value.reason is Reason.GONE
    assert file_holder.references() == []
    await file_holder.destroy("kept")
    assert not path.exists()


async def test_destroying_overwrites_what_others_have_open(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    path = folder / "scope" / "kept.key"
    was = path.read_bytes()
    with path.open("rb") as file:
        await file_holder.destroy("kept")
        now = file.read()
    assert len(now) == len(was)
    assert now != was
    assert b"sealed" not in now


async def test_a_reference_is_used_once(file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    for change in (file_holder.create("kept"), file_holder.bring("kept", Secret(KEY))):
        with pytest.raises(AlreadyExists) as refused:
            await change
        assert refused.value.code == "KEY_ALREADY_EXISTS"


async def test_a_key_that_never_was_cannot_be_changed(file_holder: FileHolder) -> None:
    for change in (file_holder.disable("none"), file_holder.enable("none"), file_holder.destroy("none")):
        with pytest.raises(NotFound) as refused:
            await change
        assert refused.value.code == "KEY_NOT_FOUND"


@pytest.mark.parametrize("reference", ["", ".", "..", "a/b", "A", "root", "x" * 121, "a\n", "ä", ".hidden"])
async def test_references_are_names_of_files_and_nothing_else(file_holder: FileHolder, reference: str) -> None:
    with pytest.raises(Invalid) as refused:
        await file_holder.create(reference)
    assert refused.value.code == "KEY_REFERENCE_INVALID"


async def test_an_imported_key_has_its_size(file_holder: FileHolder) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        await file_holder.bring("kept", Secret(b"short"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"DISABLED"', b'"ENABLED"'),
        (b'"kept"', b'"kepd"'),
        (b'"sandbox"', b'"production"'),
        (b'"root":1', b'"root":2'),
        (b'"root":1', b'"root":"x"'),
        (b'"sealed":"', b'"sealed":"AAAA'),
        (b"2026-11-02", b"2026-11-03"),
        (b"}", b',"more":1}'),
        (b"{", b""),
    ],
)
async def test_a_kept_keys_file_cannot_be_edited(folder: Path, file_holder: FileHolder, old: bytes, new: bytes) -> None:
    await file_holder.create("kept")
    wrapped = await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    await file_holder.disable("kept")
    path = folder / "scope" / "kept.key"
    good = path.read_bytes()
    assert old in good
    path.write_bytes(good.replace(old, new, 1))
    for use in (file_holder.unwrap("kept", wrapped, CONTEXT), file_holder.enable("kept")):
        with pytest.raises(Broken) as refused:
            await use
        assert refused.value.code == "KEY_FILE_BROKEN"
        assert str(path) in str(refused.value)
    path.write_bytes(good)
    await file_holder.enable("kept")
    assert (await file_holder.unwrap("kept", wrapped, CONTEXT)).reveal() == KEY


async def test_one_keys_file_is_no_good_under_another_name(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    scope = folder / "scope"
    (scope / "stolen.key").touch(0o600)
    (scope / "stolen.key").write_bytes((scope / "kept.key").read_bytes())
    with pytest.raises(Broken):
        await file_holder.wrap("stolen", Secret(KEY), CONTEXT)


async def test_a_kept_keys_file_that_others_may_read_is_refused(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    path = folder / "scope" / "kept.key"
    path.chmod(0o640)
    with pytest.raises(Broken) as refused:
        await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    assert refused.value.code == "KEY_FILE_UNSAFE"
    assert f"chmod 600 {path}" in str(refused.value)


async def test_a_folder_that_went_away_is_not_a_destroyed_key(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    wrapped = await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    (folder / "scope").rename(folder / "elsewhere")
    with pytest.raises(KeyUnavailable) as refused:
        await file_holder.unwrap("kept", wrapped, CONTEXT)
    assert refused.value.reason is Reason.AWAY
    (folder / "elsewhere").rename(folder / "scope")
    assert (await file_holder.unwrap("kept", wrapped, CONTEXT)).reveal() == KEY


async def test_a_full_disk_changes_nothing(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    wrapped = await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    before = every_byte(folder)
    with full_disk():
        for change in (file_holder.disable("kept"), file_holder.create("more"), file_holder.destroy("kept")):
            with pytest.raises(Unavailable) as refused:
                await change
            assert refused.value.code == "KEY_FILE_NOT_WRITTEN"
        with pytest.raises(Unavailable):
            await file_holder.rotate_root()
    assert every_byte(folder) == before
    assert (await file_holder.unwrap("kept", wrapped, CONTEXT)).reveal() == KEY


async def test_many_keys_are_made_together_or_none_is(folder: Path, file_holder: FileHolder) -> None:
    references = [f"key-{number}" for number in range(30)]
    await file_holder.create_many(references)
    wrapped = [await another(folder).wrap(reference, Secret(KEY), CONTEXT) for reference in references]
    assert len(set(wrapped)) == len(references)
    await file_holder.destroy("key-7")
    before = every_byte(folder)
    for taken, code in (("key-3", "KEY_ALREADY_EXISTS"), ("key-7", "KEY_DESTROYED")):
        with pytest.raises(Refused) as refused:
            await file_holder.create_many(["new-1", taken, "new-2"])
        assert refused.value.code == code
    with full_disk(), pytest.raises(Unavailable) as cramped:
        await file_holder.create_many(["new-1", "new-2"])
    assert cramped.value.code == "KEY_FILE_NOT_WRITTEN"
    assert every_byte(folder) == before
    await file_holder.create_many([])
    await file_holder.create_many(["new-1", "new-2"])
    assert {"new-1", "new-2"} <= set(another(folder).references())


async def test_the_root_rotates_while_keys_are_in_use(
    folder: Path, file_holder: FileHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.vault.holders.file.AT_ONCE", 10)
    references = [f"key-{number}" for number in range(25)]
    for reference in references:
        await file_holder.create(reference)
    other = another(folder)
    wrapped = [await other.wrap(reference, Secret(KEY), CONTEXT) for reference in references]
    under_root = await other.wrap(ROOT, Secret(KEY), CONTEXT)
    await file_holder.disable("key-3")
    assert await file_holder.rotate_root() == 2
    assert root_version(await other.wrap(ROOT, Secret(KEY), CONTEXT)) == 2
    with pytest.raises(Conflict) as refused:
        await other.rotate_root()
    assert refused.value.code == "ROOT_ROTATION_UNFINISHED"
    with pytest.raises(Conflict) as refused:
        await file_holder.end_root_version(1)
    assert refused.value.code == "ROOT_VERSION_IN_USE"
    told: list[tuple[int, int]] = []
    assert await file_holder.rewrap_kept(lambda done, of: told.append((done, of))) == 25
    assert told == [(10, 25), (20, 25), (25, 25)]
    assert await file_holder.rewrap_kept() == 0
    assert (await other.unwrap(ROOT, under_root, CONTEXT)).reveal() == KEY
    await file_holder.end_root_version(1)
    await file_holder.end_root_version(1)
    assert file_holder.root_versions == other.root_versions == (2,)
    with pytest.raises(Broken):
        await other.unwrap(ROOT, under_root, CONTEXT)
    with pytest.raises(Conflict):
        await file_holder.end_root_version(2)
    for holder in (file_holder, other, another(folder)):
        assert (await holder.describe("key-3")).state is HeldState.DISABLED
        for reference, each in zip(references, wrapped, strict=True):
            if reference != "key-3":
                assert (await holder.unwrap(reference, each, CONTEXT)).reveal() == KEY


async def test_a_rewrap_that_breaks_off_goes_on_where_it_was(
    folder: Path, file_holder: FileHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.vault.holders.file.AT_ONCE", 1)
    for number in range(5):
        await file_holder.create(f"key-{number}")
    await file_holder.rotate_root()

    def break_off(done: int, of: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        file_holder._rewrap_kept(break_off)
    assert await another(folder).rewrap_kept() == 3
    await file_holder.end_root_version(1)
    for number in range(5):
        await file_holder.wrap(f"key-{number}", Secret(KEY), CONTEXT)


async def test_two_rotations_at_once_make_one_version(folder: Path, file_holder: FileHolder) -> None:
    await file_holder.create("kept")
    results = await asyncio.gather(
        *(another(folder).rotate_root() for _ in range(4)), file_holder.rotate_root(), return_exceptions=True
    )
    assert [result for result in results if not isinstance(result, BaseException)] == [2]
    assert {type(result) for result in results if isinstance(result, BaseException)} == {Conflict}
    assert another(folder).root_versions == (1, 2)


async def test_changes_wait_for_one_another_but_not_for_ever(
    folder: Path, file_holder: FileHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files, "LOCK_WAIT_S", 0.2)
    with _files.locked(folder):
        with pytest.raises(Unavailable) as refused:
            await file_holder.create("kept")
        assert refused.value.code == "KEYS_IN_USE"
    await file_holder.create("kept")


STORM = """
import asyncio, sys
from pathlib import Path
from strongroom.kernel.clock import SystemClock
from strongroom.kernel.config import Environment
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import FileHolder

async def main(folder, name):
    holder = FileHolder(Path(folder), Environment.SANDBOX, SystemClock())
    print("ready", flush=True)
    for number in range(100000):
        reference = f"{name}-{number}"
        await holder.create(reference)
        wrapped = await holder.wrap(reference, Secret(bytes(32)), b"")
        await holder.disable(reference)
        await holder.enable(reference)
        if number % 3 == 0:
            await holder.destroy(reference)
        print(reference, wrapped.hex(), "gone" if number % 3 == 0 else "kept", flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def storm(folder: Path) -> list[tuple[str, str, str]]:
    """What three processes say that they did, before they were killed."""
    children = [
        subprocess.Popen([sys.executable, "-c", STORM, str(folder), name], stdout=subprocess.PIPE, text=True)
        for name in ("a", "b", "c")
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    time.sleep(1.5)
    lines: list[str] = []
    for child in children:
        child.send_signal(signal.SIGKILL)
        # A line that isn't whole was not said.
        lines += child.communicate(timeout=30)[0].split("\n")[:-1]
    return [(reference, wrapped, state) for line in lines for reference, wrapped, state in [line.split()]]


async def test_killed_in_the_middle_nothing_that_was_acknowledged_is_lost(folder: Path, clock: ManualClock) -> None:
    """Three processes make, change and destroy keys in one fresh folder, until they are killed."""
    acknowledged = await asyncio.to_thread(storm, folder)
    assert len(acknowledged) > 10
    holder = FileHolder(folder, Environment.SANDBOX, clock)
    for reference, wrapped, state in acknowledged:
        if state == "kept":
            assert (await holder.unwrap(reference, bytes.fromhex(wrapped), b"")).reveal() == bytes(32)
        else:
            assert (await holder.describe(reference)).state is HeldState.GONE
    for reference in holder.references():
        await holder.destroy(reference)
    assert {path.suffix for path in (folder / "scope").iterdir()} == {".gone"}


async def test_a_destruction_cut_short_is_finished_by_the_next_process(folder: Path, file_holder: FileHolder) -> None:
    """Killed between the tombstone and the shredding, or while a new file was being written."""
    await file_holder.create("kept")
    await file_holder.create("other")
    (folder / "scope" / "kept.gone").write_bytes(b"destroyed\n")
    (folder / "scope" / ".new.key.0123456789abcdef").write_bytes(b"half")
    await another(folder).describe("other")
    assert sorted(path.name for path in (folder / "scope").iterdir()) == ["kept.gone", "other.key"]


async def test_a_use_is_quick(file_holder: FileHolder) -> None:
    """Below 50 µs once the key is loaded, on a machine that is busy: the best of several rounds counts."""
    await file_holder.create("kept")
    for reference in (ROOT, "kept"):
        wrapped = await file_holder.wrap(reference, Secret(KEY), CONTEXT)
        best = 1.0
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(100):
                await file_holder.unwrap(reference, wrapped, CONTEXT)
            best = min(best, (time.perf_counter() - begun) / 100)
        assert best < 50e-6, f"{best * 1e6:.1f} µs"


async def test_no_more_keys_than_a_number_stay_in_memory(
    file_holder: FileHolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("strongroom.vault.holders.file.MAX_LOADED", 3)
    for number in range(8):
        await file_holder.create(f"key-{number}")
        await file_holder.wrap(f"key-{number}", Secret(KEY), CONTEXT)
    assert len(file_holder._loaded) <= 3
    await file_holder.close()
    assert not file_holder._loaded


async def test_what_is_in_the_folder_is_of_its_environment(folder: Path, clock: ManualClock) -> None:
    """A folder that is taken over by the other environment opens nothing."""
    first_form(folder, os.urandom(32))
    sandbox = FileHolder(folder, Environment.SANDBOX, clock)
    await sandbox.create("kept")
    wrapped = await sandbox.wrap(ROOT, Secret(KEY), CONTEXT)
    production = FileHolder(folder, Environment.PRODUCTION, clock)
    with pytest.raises(Broken):
        await production.unwrap(ROOT, wrapped, CONTEXT)
    with pytest.raises(Broken):
        await production.wrap("kept", Secret(KEY), CONTEXT)

"""A token behind PKCS#11, on SoftHSM2: what never leaves it, and what happens when it is ill."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from strongroom.kernel.errors import Broken, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import FileHolder, HeldState, KeyUnavailable, Reason, pkcs11
from strongroom.vault.holders.pkcs11 import Pkcs11Holder
from tests.vault.holders.conftest import MODULE, PATIENCE_S, PIN, TOKEN, Hsm

KEY = bytes(range(32))
CONTEXT = b"context"


@pytest.fixture
async def holder(hsm: Hsm) -> AsyncIterator[Pkcs11Holder]:
    hsm.admin("make", "one")
    found = hsm.holder()
    yield found
    await found.close()


EARLIER: set[int] = set()


@pytest.fixture(autouse=True)
def _earlier() -> None:
    """Notes which processes there are already: other tests' platforms may hold tokens as long as the run lasts."""
    EARLIER.update(child.pid for child in psutil.Process().children())


def children() -> list[psutil.Process]:
    """The processes of tokens that this test started; one that was killed may still wait to be noticed."""
    found = [child for child in psutil.Process().children() if child.pid not in EARLIER]
    running = [child for child in found if child.status() != psutil.STATUS_ZOMBIE]
    return [child for child in running if any("_token.py" in part for part in child.cmdline())]


async def reason_of(holder: Pkcs11Holder, label: str = "one") -> Reason:
    with pytest.raises(KeyUnavailable) as refused:
        await holder.wrap(label, Secret(KEY), CONTEXT)
    assert refused.value.code == "KEY_UNAVAILABLE"
    return refused.value.reason


async def works(holder: Pkcs11Holder, within_s: float = 60.0) -> None:
    """Some time from now the holder wraps again."""
    deadline = time.monotonic() + within_s
    while True:
        try:
            await holder.wrap("one", Secret(KEY), CONTEXT)
        except KeyUnavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)
        else:
            return


async def ended(process: psutil.Process) -> None:
    deadline = time.monotonic() + 30
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def test_the_value_never_leaves_the_token(hsm: Hsm, holder: Pkcs11Holder) -> None:
    """Neither read, nor wrapped out, nor by taking the marks off; and the token's files don't show it in clear."""
    refusals = hsm.admin("steal", "one").split()
    assert refusals[0] == "AttributeSensitive"
    assert "STOLEN" not in refusals
    assert len(refusals) == 5
    assert (await holder.describe("one")).is_extractable is False
    hsm.admin("make-extractable", "loose")
    assert (await holder.describe("loose")).is_extractable is True


async def test_a_key_of_128_bits_is_told_and_not_used(hsm: Hsm, holder: Pkcs11Holder) -> None:
    hsm.admin("make-short", "short")
    assert (await holder.describe("short")).algorithm == "AES-128"
    assert await reason_of(holder, "short") is Reason.UNFIT


async def test_two_keys_of_one_label_are_not_chosen_from(hsm: Hsm, holder: Pkcs11Holder) -> None:
    hsm.admin("make", "one")
    assert await reason_of(holder) is Reason.NONSENSE


async def test_a_destroyed_key_stays_unreadable_though_the_label_is_used_again(hsm: Hsm, holder: Pkcs11Holder) -> None:
    wrapped = await holder.wrap("one", Secret(KEY), CONTEXT)
    hsm.admin("destroy", "one")
    assert await reason_of(holder) is Reason.GONE
    hsm.admin("make", "one")
    with pytest.raises(Broken):
        await holder.unwrap("one", wrapped, CONTEXT)


async def test_a_token_that_goes_and_comes_back_is_found_again(hsm: Hsm, holder: Pkcs11Holder) -> None:
    wrapped = await holder.wrap("one", Secret(KEY), CONTEXT)
    for _ in range(2):
        hsm.tokens.rename(hsm.folder / "removed")
        assert await reason_of(holder) is Reason.AWAY
        with pytest.raises(KeyUnavailable):
            await holder.describe("one")
        (hsm.folder / "removed").rename(hsm.tokens)
        assert (await holder.unwrap("one", wrapped, CONTEXT)).reveal() == KEY
        assert (await holder.describe("one")).state is HeldState.ENABLED


async def test_a_process_that_dies_is_started_again(holder: Pkcs11Holder) -> None:
    wrapped = await holder.wrap("one", Secret(KEY), CONTEXT)
    (child,) = children()
    child.kill()
    child.wait()
    await works(holder)
    assert (await holder.unwrap("one", wrapped, CONTEXT)).reveal() == KEY


async def test_a_token_that_hangs_holds_up_nobody_else(hsm: Hsm, file_holder: FileHolder) -> None:
    hsm.admin("make", "one")
    holder = hsm.holder(limit_s=1.0)
    await works(holder)
    wrapped = await holder.wrap("one", Secret(KEY), CONTEXT)
    await file_holder.create("kept")
    ours = await file_holder.wrap("kept", Secret(KEY), CONTEXT)
    (child,) = children()
    child.suspend()
    opened = 0
    begun = time.monotonic()
    calls = [asyncio.ensure_future(holder.unwrap("one", wrapped, CONTEXT)) for _ in range(20)]
    while not all(call.done() for call in calls):
        await file_holder.unwrap("kept", ours, CONTEXT)
        opened += 1
        await asyncio.sleep(0.005)
    took = time.monotonic() - begun
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, KeyUnavailable)} == {Reason.SLOW}
    assert len([outcome for outcome in outcomes if isinstance(outcome, KeyUnavailable)]) == 20
    assert took < 10, "they waited one after the other, a second each"
    assert opened > 10
    await ended(child)
    await works(holder)
    assert (await holder.unwrap("one", wrapped, CONTEXT)).reveal() == KEY
    await holder.close()


async def test_a_library_that_hangs_inside_is_given_up(hsm: Hsm) -> None:
    """Somebody holds the locks on the token's files, for which the library waits without end."""
    hsm.admin("make", "one")
    holder = hsm.holder(limit_s=1.0)
    await works(holder)
    with contextlib.ExitStack() as held:
        for path in hsm.tokens.glob("*/*"):
            fcntl.lockf(held.enter_context(path.open("r+b")), fcntl.LOCK_EX)
        assert await reason_of(holder) is Reason.SLOW
    await works(holder)
    await holder.close()


async def test_too_many_calls_are_refused_at_once(hsm: Hsm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pkcs11, "MAX_WAITING", 3)
    hsm.admin("make", "one")
    holder = hsm.holder()
    outcomes = await asyncio.gather(
        *(holder.wrap("one", Secret(KEY), CONTEXT) for _ in range(5)), return_exceptions=True
    )
    refused = [outcome for outcome in outcomes if isinstance(outcome, KeyUnavailable)]
    assert len(refused) == 2
    assert all("too many" in str(error) for error in refused)
    await works(holder)
    await holder.close()


async def test_a_call_that_is_given_up_leaves_no_answer_for_the_next(holder: Pkcs11Holder) -> None:
    wrapped = [await holder.wrap("one", Secret(bytes([number]) * 32), CONTEXT) for number in (1, 2)]
    for delay in (0.0, 0.0005, 0.001, 0.002):
        call = asyncio.ensure_future(holder.unwrap("one", wrapped[0], CONTEXT))
        await asyncio.sleep(delay)
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert (await holder.unwrap("one", wrapped[1], CONTEXT)).reveal() == bytes([2]) * 32


async def test_a_wrong_pin_is_tried_once_by_all_processes_together(hsm: Hsm, tmp_path: Path) -> None:
    """Tokens lock after a few wrong PINs. So the first refusal is remembered beside the file, until that changes."""
    hsm.admin("make", "one")
    hsm.pin_file.write_text("999999")
    holders = [hsm.holder() for _ in range(3)]
    reasons = await asyncio.gather(*(reason_of(holder) for holder in holders))
    assert set(reasons) == {Reason.DENIED}
    for holder in [*holders, hsm.holder()]:
        with pytest.raises(KeyUnavailable) as refused:
            await holder.describe("one")
        assert refused.value.reason is Reason.DENIED
        assert "until its file changes" in str(refused.value)
        assert "999999" not in str(refused.value)
    hsm.pin_file.write_text(PIN)
    for holder in holders:
        await works(holder)
        await holder.close()


async def test_a_pin_that_is_no_number_or_missing_is_refused(hsm: Hsm) -> None:
    hsm.pin_file.write_bytes(b"\xff\xfe" * 300)
    holder = hsm.holder()
    assert await reason_of(holder) is Reason.DENIED
    hsm.pin_file.unlink()
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe("one")
    assert refused.value.reason is Reason.DENIED
    assert str(hsm.pin_file) in str(refused.value)
    await holder.close()


async def test_a_pin_that_others_may_read_is_not_used(hsm: Hsm) -> None:
    hsm.pin_file.chmod(0o644)
    holder = hsm.holder()
    with pytest.raises(Broken) as refused:
        await holder.describe("one")
    assert refused.value.code == "KEY_FILE_UNSAFE"
    await holder.close()


async def test_a_library_or_token_that_is_not_there_is_away(hsm: Hsm, tmp_path: Path) -> None:
    no_library = tmp_path / "lib.so"
    no_library.write_bytes(b"not a library")
    for module, token in ((no_library, TOKEN), (tmp_path / "none.so", TOKEN), (MODULE, "unknown")):
        holder = Pkcs11Holder("hsm", module=module, token=token, pin_file=hsm.pin_file, limit_s=PATIENCE_S)
        assert await reason_of(holder) is Reason.AWAY
        await holder.close()


async def test_a_process_that_answers_garbage_is_given_up(
    hsm: Hsm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hsm.admin("make", "one")
    for number, program in enumerate(
        (
            "import sys; sys.stdout.write('hello, I am a library that prints'); sys.stdout.flush(); input()",
            "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\3abc'); sys.stdout.flush(); input()",
            "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\1\\x80'); sys.stdout.flush(); input()",
            "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\x09\\x81\\xa5bytes\\xc4\\0')\nsys.stdout.flush()",
            "import sys; sys.stdout.buffer.write(b'\\0\\0\\0\\1\\x90'); sys.stdout.flush(); input()",
            "raise SystemExit(1)",
        )
    ):
        file = tmp_path / f"{number}.py"
        file.write_text(program)
        monkeypatch.setattr(pkcs11, "_PROGRAM", file)
        holder = hsm.holder()
        assert await reason_of(holder) in {Reason.NONSENSE, Reason.AWAY}
        await holder.close()


async def test_no_process_outlives_its_holder(hsm: Hsm, holder: Pkcs11Holder) -> None:
    await holder.wrap("one", Secret(KEY), CONTEXT)
    (child,) = children()
    await holder.close()
    await ended(child)
    assert children() == []
    assert await reason_of(holder) is Reason.AWAY


async def test_the_pin_is_on_no_command_line_and_in_no_environment(holder: Pkcs11Holder) -> None:
    await holder.wrap("one", Secret(KEY), CONTEXT)
    (child,) = children()
    assert PIN not in " ".join(child.cmdline())
    assert PIN not in " ".join(child.environ().values())


async def test_a_child_is_killed_with_its_parent(hsm: Hsm, tmp_path: Path) -> None:
    """Also while its library hangs: then nobody in it notices that the pipe was closed."""
    hsm.admin("make", "one")
    program = tmp_path / "parent.py"
    program.write_text(f"""
import asyncio, os
from pathlib import Path
from strongroom.vault.holders.pkcs11 import Pkcs11Holder

async def main():
    holder = Pkcs11Holder("hsm", module=Path({str(MODULE)!r}), token={TOKEN!r}, pin_file=Path({str(hsm.pin_file)!r}),
                          limit_s=10.0)
    await holder.describe("one")
    print(holder._child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
""")
    parent = await asyncio.create_subprocess_exec(sys.executable, str(program), stdout=asyncio.subprocess.PIPE)
    assert parent.stdout is not None
    child = psutil.Process(int(await parent.stdout.readline()))
    child.suspend()
    os.kill(parent.pid, signal.SIGKILL)
    await parent.wait()
    await ended(child)


async def test_errors_are_situations_that_callers_know(holder: Pkcs11Holder) -> None:
    with pytest.raises(Unavailable) as refused:
        await holder.wrap("two", Secret(KEY), CONTEXT)
    (failure,) = refused.value.failures
    assert failure.code == "KEY_UNAVAILABLE"
    assert failure.values["holder"] == "hsm"
    assert failure.values["reason"] == "GONE"

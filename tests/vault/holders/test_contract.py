"""What every holder does alike."""

from __future__ import annotations

import asyncio

import pytest

from strongroom.kernel.errors import Broken, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import HeldState, KeyUnavailable, Reason
from strongroom.vault.holders.contract import MAX_CONTEXT_BYTES, MAX_WRAPPED_BYTES
from tests.vault.holders.conftest import Case

KEY = bytes(range(32))
CONTEXT = b"sandbox\0tenant\0seal"


async def test_what_is_wrapped_opens_again(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    assert (await case.holder.unwrap(case.key, wrapped, CONTEXT)).reveal() == KEY


async def test_a_wrapped_key_shows_nothing_and_is_never_the_same(case: Case) -> None:
    wrapped = [await case.holder.wrap(case.key, Secret(KEY), CONTEXT) for _ in range(3)]
    assert len(set(wrapped)) == 3
    assert not any(KEY[:8] in each for each in wrapped)
    assert all(len(each) <= MAX_WRAPPED_BYTES for each in wrapped)


async def test_the_longest_context_and_an_empty_one_are_taken(case: Case) -> None:
    for context in (bytes(MAX_CONTEXT_BYTES), b"\xff" * MAX_CONTEXT_BYTES, b""):
        wrapped = await case.holder.wrap(case.key, Secret(KEY), context)
        assert (await case.holder.unwrap(case.key, wrapped, context)).reveal() == KEY


@pytest.mark.parametrize("context", [CONTEXT + b"x", CONTEXT[:-1], b""])
async def test_another_context_does_not_open_it(case: Case, context: bytes) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    with pytest.raises(Broken) as refused:
        await case.holder.unwrap(case.key, wrapped, context)
    assert refused.value.code == "DATA_KEY_BROKEN"


async def test_another_key_does_not_open_it(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    with pytest.raises(Broken):
        await case.holder.unwrap(case.other, wrapped, CONTEXT)


async def test_an_altered_or_cut_one_does_not_open(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    middle = len(wrapped) // 2
    altered = [
        wrapped[:middle] + bytes([wrapped[middle] ^ 1]) + wrapped[middle + 1 :],
        wrapped[:-1] + bytes([wrapped[-1] ^ 4]),
        b"\x7f" + wrapped[1:],
        wrapped[:-1],
        wrapped + b"\0",
        wrapped[:20],
        b"",
        bytes(MAX_WRAPPED_BYTES + 1),
    ]
    for each in altered:
        with pytest.raises(Broken) as refused:
            await case.holder.unwrap(case.key, each, CONTEXT)
        assert refused.value.code == "DATA_KEY_BROKEN"
    assert (await case.holder.unwrap(case.key, wrapped, CONTEXT)).reveal() == KEY


async def test_a_key_that_is_not_there_is_gone(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    with pytest.raises(KeyUnavailable) as refused:
        await case.holder.wrap(case.missing, Secret(KEY), CONTEXT)
    assert (refused.value.code, refused.value.reason) == ("KEY_UNAVAILABLE", Reason.GONE)
    with pytest.raises(KeyUnavailable) as refused:
        await case.holder.unwrap(case.missing, wrapped, CONTEXT)
    assert refused.value.reason is Reason.GONE
    assert (await case.holder.describe(case.missing)).state is HeldState.GONE


async def test_a_disabled_key_does_nothing_until_it_is_enabled(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    await case.disable(case.key)
    for use in (case.holder.unwrap(case.key, wrapped, CONTEXT), case.holder.wrap(case.key, Secret(KEY), CONTEXT)):
        with pytest.raises(KeyUnavailable) as refused:
            await use
        assert refused.value.reason is Reason.DISABLED
    assert (await case.holder.describe(case.key)).state is HeldState.DISABLED
    await case.enable(case.key)
    assert (await case.holder.unwrap(case.key, wrapped, CONTEXT)).reveal() == KEY
    assert (await case.holder.describe(case.key)).state is HeldState.ENABLED


async def test_a_destroyed_key_opens_nothing_any_more(case: Case) -> None:
    """AWS waits a week first; until then the key is as good as disabled."""
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    await case.destroy(case.key)
    with pytest.raises(KeyUnavailable) as refused:
        await case.holder.unwrap(case.key, wrapped, CONTEXT)
    assert refused.value.reason == case.destroyed
    assert (await case.holder.describe(case.key)).state == case.destroyed
    assert (await case.holder.describe(case.other)).state is HeldState.ENABLED


async def test_a_key_is_described(case: Case) -> None:
    key = await case.holder.describe(case.key)
    assert (key.reference, key.algorithm, key.state) == (case.key, "AES-256", HeldState.ENABLED)
    assert key.is_extractable is case.is_extractable


async def test_a_malformed_reference_is_refused(case: Case) -> None:
    for use in (
        case.holder.wrap(case.malformed, Secret(KEY), CONTEXT),
        case.holder.unwrap(case.malformed, bytes(65), CONTEXT),
        case.holder.describe(case.malformed),
    ):
        with pytest.raises((Invalid, Broken)) as refused:
            await use
        assert refused.value.code in {"KEY_REFERENCE_INVALID", "DATA_KEY_BROKEN"}


async def test_only_whole_keys_and_short_contexts_are_wrapped(case: Case) -> None:
    for key, context in ((KEY[:-1], CONTEXT), (KEY + b"\0", CONTEXT), (KEY, bytes(MAX_CONTEXT_BYTES + 1))):
        with pytest.raises(ValueError, match="32 bytes"):
            await case.holder.wrap(case.key, Secret(key), context)


async def test_many_at_once_each_get_their_own(case: Case) -> None:
    keys = [bytes([number]) * 32 for number in range(40)]
    wrapped = await asyncio.gather(*(case.holder.wrap(case.key, Secret(key), key[:4]) for key in keys))
    opened = await asyncio.gather(
        *(case.holder.unwrap(case.key, each, key[:4]) for each, key in zip(wrapped, keys, strict=True))
    )
    assert [key.reveal() for key in opened] == keys


async def test_after_closing_others_are_unaffected_and_errors_hold_no_secret(case: Case) -> None:
    wrapped = await case.holder.wrap(case.key, Secret(KEY), CONTEXT)
    with pytest.raises(Broken) as refused:
        await case.holder.unwrap(case.key, wrapped, b"elsewhere")
    text = f"{refused.value} {refused.value.failures}"
    assert KEY.hex() not in text
    assert wrapped.hex() not in text

"""Passwords: what is taken for one, and how it is kept.

After NIST SP 800-63B-4 section 3.1.1: long enough, nothing that everybody guesses first, no rules about kinds of
characters, nothing that expires. A password alone never opens the door here (`people.sign_in` wants a second factor),
so 8 characters are enough. Kept is an Argon2id hash (RFC 9106), inside an envelope of the account.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from zxcvbn.frequency_lists import FREQUENCY_LISTS

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.secret import Secret

MIN_CHARACTERS: Final = 8
MAX_CHARACTERS: Final = 256
MIN_CONTEXT_WORD: Final = 4
"""Shorter words of a name or an address may be anywhere in a password."""
MIN_BESIDES: Final = 6
"""How many characters have to be left when words of the person's own surroundings are taken out."""
HASHES_AT_ONCE: Final = 2
"""Each takes 46 MiB for as long as it lasts."""
HASHER: Final = PasswordHasher(time_cost=1, memory_cost=47_104, parallelism=1)
"""OWASP Password Storage Cheat Sheet, first of its equivalent settings."""
_ENDS: Final = re.compile(r"^[\W\d_]+|[\W\d_]+$")
_WORDS: Final = re.compile(r"\w+")
_LOOKALIKES: Final = str.maketrans("@4301!5$7", "aaeoiisst")
_threads: Final = ThreadPoolExecutor(HASHES_AT_ONCE, thread_name_prefix="passwords")


def check_password(password: Secret[str], context: Iterable[str]) -> None:
    """Go on only with a password that is fit to be one. `context`: names and addresses that it mustn't be made of.

    Raises errors.Invalid (`PASSWORD_LENGTH_OUT_OF_RANGE`, `PASSWORD_TOO_COMMON`, `PASSWORD_TOO_OBVIOUS`).
    """
    text = _normalised(password)
    if not MIN_CHARACTERS <= len(text) <= MAX_CHARACTERS:
        raise Invalid(
            Failure(
                "PASSWORD_LENGTH_OUT_OF_RANGE",
                "A password has {minLength} to {maxLength} characters.",
                {"minLength": MIN_CHARACTERS, "maxLength": MAX_CHARACTERS},
            )
        )
    folded = text.casefold()
    if _is_common(folded) or _is_monotonous(folded):
        raise Invalid(
            Failure("PASSWORD_TOO_COMMON", "This password is among the first that everybody tries. Think of another.")
        )
    rest = folded
    for word in sorted(_context_words(context), key=len, reverse=True):
        rest = rest.replace(word, "")
    if rest != folded and len(rest) < MIN_BESIDES:
        raise Invalid(
            Failure(
                "PASSWORD_TOO_OBVIOUS",
                "This password is made of your own name, address or company. Think of another.",
            )
        )


async def hash_password(password: Secret[str]) -> str:
    """What is kept of a password (in the form of the Argon2 reference implementation). Costs some 40 ms of CPU."""
    return await asyncio.get_running_loop().run_in_executor(_threads, HASHER.hash, _normalised(password))


async def is_password(password: Secret[str], kept: str | None) -> bool:
    """Whether it is the password that `kept` was made of; with None it never is, and that takes as long to say."""
    typed = _normalised(password)
    is_right = await asyncio.get_running_loop().run_in_executor(_threads, _verify, typed, kept or _nobodys())
    return is_right and kept is not None


def _verify(password: str, kept: str) -> bool:
    try:
        return HASHER.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


@cache
def _nobodys() -> str:
    return HASHER.hash("nobody's")


def _normalised(password: Secret[str]) -> str:
    """One spelling for what looks the same: NFC (RFC 8265 section 4.2, OpaqueString)."""
    return unicodedata.normalize("NFC", password.reveal())


@cache
def _common() -> frozenset[str]:
    return frozenset(FREQUENCY_LISTS["passwords"])


def _is_common(folded: str) -> bool:
    """Whether it is a common password, as it is, in lookalike characters, or with digits and signs around it."""
    core = _ENDS.sub("", folded)
    plain = {folded, folded.translate(_LOOKALIKES), core, _ENDS.sub("", folded.translate(_LOOKALIKES))}
    return any(len(word) >= MIN_CONTEXT_WORD and word in _common() for word in plain)


def _is_monotonous(folded: str) -> bool:
    """Whether it is a short piece again and again, or one step along the characters after another."""
    if any(folded == (folded[:size] * len(folded))[: len(folded)] for size in range(1, 5)):
        return True
    steps = {ord(after) - ord(before) for before, after in itertools.pairwise(folded)}
    return len(steps) == 1


def _context_words(context: Iterable[str]) -> set[str]:
    words = {word for text in (*context, "strongroom") for word in _WORDS.findall(text.casefold())}
    return {word for word in words if len(word) >= MIN_CONTEXT_WORD}

"""Time-based one-time codes (RFC 6238): six digits that change every 30 seconds.

A code is taken once: its step is remembered, and only later ones count from then on.
"""

from __future__ import annotations

import base64
import hmac
import os
from datetime import datetime
from typing import Final
from urllib.parse import quote

from strongroom.kernel.secret import Secret

SECRET_BYTES: Final = 20
"""As long as the hash's result (RFC 4226 section 4, requirement 6)."""
STEP_S: Final = 30
DIGITS: Final = 6
STEPS_OFF: Final = 1
"""How many steps a clock may be off, either way (RFC 6238 section 5.2)."""


def new_totp_secret() -> Secret[bytes]:
    """A secret to be shared with a person's authenticator."""
    return Secret(os.urandom(SECRET_BYTES))


def code_at(secret: Secret[bytes], step: int) -> str:
    """The code of a step, counted from 1970 (RFC 4226 section 5.3, with HMAC-SHA-1 as every authenticator has it)."""
    digest = hmac.digest(secret.reveal(), step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFF_FFFF
    return f"{number % 10**DIGITS:0{DIGITS}d}"


def step_of(instant: datetime) -> int:
    """The step that an instant is in."""
    return int(instant.timestamp()) // STEP_S


def find_step(secret: Secret[bytes], code: str, now: datetime, *, after: int) -> int | None:
    """The step whose code this is, near `now` and later than the last one taken; None when there is none."""
    typed = "".join(code.split())
    found = None
    for step in range(step_of(now) - STEPS_OFF, step_of(now) + STEPS_OFF + 1):
        if hmac.compare_digest(code_at(secret, step).encode(), typed.encode()) and step > after:
            found = step
    return found


def as_base32(secret: Secret[bytes]) -> str:
    """The secret as people type it into an authenticator, in groups of four."""
    text = base64.b32encode(secret.reveal()).decode()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def as_uri(secret: Secret[bytes], *, address: str, issuer: str) -> Secret[str]:
    """The secret as authenticators read it from a picture (`otpauth`, the de facto key URI format)."""
    label = quote(f"{issuer}:{address}", safe="")
    text = base64.b32encode(secret.reveal()).decode()
    return Secret(f"otpauth://totp/{label}?secret={text}&issuer={quote(issuer, safe='')}&digits={DIGITS}")

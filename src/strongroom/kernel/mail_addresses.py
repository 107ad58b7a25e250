"""Mail addresses: which are taken, how they are compared, how they are shown.

An address is `local@domain` (RFC 5321 section 4.1.2, with RFC 6531 for letters beyond ASCII): the local part a run of
atoms with dots between them, the domain a name of at least two labels. Quoted local parts and address literals are
refused; hardly anybody can receive mail at them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

MAX_ADDRESS: Final = 254
"""Octets: a path of 256 (RFC 5321 section 4.5.3.1.3) less its brackets."""
MAX_LOCAL_PART: Final = 64
"""Octets (RFC 5321 section 4.5.3.1.1)."""
_ATOM: Final = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~\u0080-\U0010ffff-]+"
_LOCAL: Final = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")


def find_address(text: str) -> str | None:
    """The address written in `text` in its comparable form, or None when it isn't one that is taken.

    Two addresses are the same when these are: the domain in ASCII and lower case (IDNA 2008 after the mapping of UTS
    46, non-transitional), the local part composed (NFC) and without regard to case. RFC 5321 section 2.4 lets a domain
    tell case apart in local parts, and tells everybody not to; people who type an address don't.
    """
    local, at, domain = text.strip().rpartition("@")
    local = unicodedata.normalize("NFC", unicodedata.normalize("NFC", local).casefold())
    if not at or not _LOCAL.fullmatch(local) or not local.isprintable() or " " in local:
        return None
    try:
        ascii_domain = idna.encode(domain, uts46=True, transitional=False, std3_rules=True).decode().rstrip(".")
    except (idna.IDNAError, UnicodeError):
        return None
    address = f"{local}@{ascii_domain}"
    if "." not in ascii_domain or len(local.encode()) > MAX_LOCAL_PART or len(address.encode()) > MAX_ADDRESS:
        return None
    return address


def mask_address(text: str) -> str:
    """An address as it may be shown: its first character and its domain."""
    local, _, domain = text.rpartition("@")
    return f"{local[:1]}***@{domain}"

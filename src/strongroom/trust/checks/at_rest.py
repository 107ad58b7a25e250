"""ENC-2: nothing that describes a transaction stands anywhere in clear.

Canaries (a text, two account numbers and an amount, fresh in every run) are sent through the public API on every way in,
into every region. After a checkpoint the installation's whole data directory is read byte for byte (write-ahead log and
server log included), and a base backup made for the purpose; what the database compresses is unpacked by reading every
column of every table as administrator. What must be found (the run's own API keys' ids, which are in clear by design)
is looked for on the same walk, so that a search that saw nothing can't pass.

Not searched: files on their way to and from banks (`files/outbox`, `files/inbox`), which are in clear by nature, and the
database's programs.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import string
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from psycopg import sql

from strongroom.database import CATALOGUE, EmbeddedServer
from strongroom.database.databases import DIRECTORY
from strongroom.trust.client import Caller
from strongroom.trust.searching import Pattern, Search, amount_patterns, text_patterns
from strongroom.trust.stage import Seat, Stage, stage
from strongroom.trust.verdicts import CannotTell, Figure, Findings
from strongroom.trust.workbench import Workbench

_BANK_CODE: Final = "37040044"
_FAR_OFF: Final = "2099-12-31"
_GIB: Final = 1 << 30
_MIB: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Values that exist nowhere else. `text` is part of every reference, name, address and note."""

    text: str
    account: str
    number: str
    minor: int

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return Decimal(self.minor).scaleb(-2)

    @property
    def iban(self) -> str:
        """An IBAN with the account number in it and right check digits (ISO 13616)."""
        bban = _BANK_CODE + self.account
        check = 98 - int(bban + "131400") % 97  # DE00 behind the BBAN, letters as numbers
        return f"DE{check:02}{bban}"

    @property
    def patterns(self) -> Sequence[Pattern]:
        """All that is looked for."""
        return [
            *text_patterns("text", self.text),
            *text_patterns("IBAN", self.account),
            *text_patterns("account number", self.number),
            *amount_patterns("amount", self.amount, self.minor),
        ]


def draw_canaries() -> Canaries:
    """Fresh ones. No byte of the amount is zero, so that it can be told from padding in every form."""
    while True:
        minor = 10_000_000_000_000 + secrets.randbelow(89_999_999_999_999)
        if 0 not in minor.to_bytes(6, "big") and minor % 100:
            break
    letters = string.ascii_uppercase + string.digits
    return Canaries(
        text="".join(secrets.choice(letters) for _ in range(14)),
        account=f"{1 + secrets.randbelow(9)}{secrets.randbelow(10**9):09}",
        number=f"{1 + secrets.randbelow(9)}{secrets.randbelow(10**14):014}",
        minor=minor,
    )


async def check_at_rest(bench: Workbench) -> Figure:
    """See the module."""
    if bench.server is None:
        raise CannotTell(
            "The database is on a server of your own, whose files can't be read from here: nothing is claimed."
        )
    canaries, findings, planted = draw_canaries(), Findings(), 0
    async with stage(bench) as scene:
        seats = (scene.here, scene.abroad)
        for seat in seats:
            planted += await _plant(await scene.caller(seat), canaries)
        async with bench.admin(DIRECTORY) as connection:
            await connection.execute("checkpoint")
        known = [seat.key.public_key.bytes for seat in seats]
        searched = [
            await _search_columns(bench, canaries, findings, scene),
            *await asyncio.to_thread(_search_files, bench, bench.server, canaries, known),
        ]
    for search in searched:
        findings.expect(
            len(search.seen) == len(search.expected), f"the search of {search.where} did not see what it must see"
        )
        for found in search.search.found:
            findings.expect(False, f"found in clear: {found}")
    size = sum(search.size for search in searched)
    volume = f"{size / _GIB:.2f} GiB" if size >= _GIB else f"{size / _MIB:.0f} MiB"
    return findings.figure(
        f"{planted} canaries, {volume} searched (data directory, write-ahead log, backup, every column), 0 found"
    )

"""Payments held against the conditions of whoever makes them.

Most roles allow every payment, and nothing happens here. A role of the account's own may be bound to countries, and to
ceilings for one payment and for one day: then every payment is asked about. What somebody made on a day (UTC) is added
up in a row of its own, whose lock keeps two requests from both being the last that fit. A payment counts on the day it
is made, whatever becomes of it; changing one counts as making it anew, and cancelling gives nothing back.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol
from uuid import UUID

import msgspec

from strongroom.access import Payment, Permission, limits, require
from strongroom.database import Operation

_ID_BYTES: Final = 16


class Made(Protocol):
    """What is looked at of a payment that is made."""

    @property
    def country(self) -> str:
        """ISO 3166-1 alpha-2."""

    @property
    def currency(self) -> str:
        """ISO 4217."""

    @property
    def minor(self) -> int:
        """The amount in the currency's smallest unit."""


class Ledger:
    """What the operation's actor makes, as it is made; `keep` writes down what was. Without totals, nothing matters."""

    def __init__(self, totals: dict[str, int] | None = None, row: UUID | None = None) -> None:
        self._totals = totals
        self._row = row

    def admit(self, op: Operation, payments: Iterable[Made]) -> None:
        """Go on only if all of these may be made, on top of what was; they count then.

        Raises errors.Forbidden (see `access.require`).
        """
        if self._totals is None:
            return
        totals = dict(self._totals)
        for made in payments:
            today = totals.get(made.currency, 0) + made.minor
            payment = Payment(country=made.country, currency=made.currency, minor=made.minor, today=today)
            require(op, Permission.TRANSACTIONS_WRITE, payment)
            totals[made.currency] = today
        self._totals = totals

    def take_back(self, payments: Iterable[Made]) -> None:
        """These were not made after all."""
        if self._totals is not None:
            for made in payments:
                self._totals[made.currency] -= made.minor

    async def keep(self, op: Operation) -> None:
        """Write down what was made today so far."""
        if self._row is not None:
            sealed = op.cipher.seal("day_totals", "sealed", self._row.bytes, msgspec.msgpack.encode(self._totals))
            await op.run("update day_totals set sealed = %s where total_id = %s", sealed, self._row)


async def open_ledger(op: Operation) -> Ledger:
    """The actor's ledger; where days matter to their roles, locked until the operation's end."""
    bound = limits(op.actor, Permission.TRANSACTIONS_WRITE)
    if not bound:
        return Ledger()
    if not any(role.limits_days for role in bound):
        return Ledger({})
    row = UUID(bytes=op.cipher.index("day_totals", "total_id", f"{op.actor.name} {op.today}")[:_ID_BYTES])
    empty = op.cipher.seal("day_totals", "sealed", row.bytes, msgspec.msgpack.encode({}))
    await op.run(
        "insert into day_totals (tenant_id, total_id, day, sealed) values (%s, %s, %s, %s) on conflict do nothing",
        op.tenant,
        row,
        op.today,
        empty,
    )
    found = await op.row("select sealed from day_totals where total_id = %s for update", row)
    if found is None:
        raise LookupError("the row that was just written is gone")
    return Ledger(_decode(op.cipher.open("day_totals", "sealed", row.bytes, found[0])), row)


_decode: Final = msgspec.msgpack.Decoder(dict[str, int]).decode

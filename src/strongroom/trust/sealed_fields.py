"""A tenant's sealed fields as they stand in the database, and what becomes of them where they don't belong."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from strongroom.database import KeysChanged, Operation
from strongroom.database.catalogue import OPENED_FOR, SENSITIVE
from strongroom.database.sealed_tables import SEALED_TABLES, row_bytes
from strongroom.kernel.cipher import Cipher
from strongroom.kernel.errors import StrongroomError
from strongroom.trust.stage import PROVER, Seat
from strongroom.trust.verdicts import Findings
from strongroom.trust.workbench import Workbench
from strongroom.vault import Layer, LayerCipher, Scope
from strongroom.vault.envelopes import HEADER_BYTES, NONCE_BYTES, context_of
from strongroom.vault.records import read_keys

BROKEN: Final = "ENVELOPE_BROKEN"
_FIELDS_EACH: Final = 40
"""How many fields of a table are looked at."""
_TAG_BYTES: Final = 16
_SHORTEST: Final = HEADER_BYTES + NONCE_BYTES + _TAG_BYTES
_VERSION: Final = slice(2, 6)
"""Where an envelope says the version of its key (docs/internals/envelope.md)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """A sealed field: where it stands, and its envelope."""

    table: str
    column: str
    row: bytes
    envelope: bytes

    @property
    def place(self) -> str:
        """Table and column."""
        return f"{self.table}.{self.column}"

    @property
    def is_sensitive(self) -> bool:
        """Whether the catalogue wants it under the customer's own key as well."""
        return (self.table, self.column) in SENSITIVE

    def open(self, cipher: Cipher) -> bytes:
        """What it holds, for a purpose that its column may be opened for. Raises as `kernel.cipher.Cipher.open`."""
        purposes = OPENED_FOR.get((self.table, self.column))
        if purposes:
            cipher = cipher.for_purpose(min(purposes))
        return cipher.open(self.table, self.column, self.row, self.envelope)

    def refusal(self, cipher: Cipher) -> str:
        """The code of the error that opening it ends in; empty when it opens."""
        try:
            self.open(cipher)
        except KeysChanged:
            return BROKEN  # a key that nobody has
        except StrongroomError as error:
            return error.code
        return ""


async def read_fields(op: Operation) -> list[Field]:
    """The sealed fields of the operation's scope, of large tables the newest only."""
    found = []
    for table, sealed in SEALED_TABLES.items():
        owner = sealed.owner[0] if len(sealed.owner) == 1 else f"coalesce({', '.join(sealed.owner)})"
        rows = await op.rows(
            f"select {', '.join((*sealed.key, *sealed.columns))} from {table} "  # noqa: S608  names of the catalogue
            f"where {owner} = %s order by {', '.join(sealed.key)} desc limit %s",
            op.scope,
            _FIELDS_EACH,
        )
        for values in rows:
            bound = [values[sealed.key.index(name)] for name in sealed.row]
            row = row_bytes(table, bound, op.cipher.index)
            for column, envelope in zip(sealed.columns, values[len(sealed.key) :], strict=True):
                if envelope is not None:
                    found.append(Field(table=table, column=column, row=row, envelope=envelope))
    return found


async def open_layers(bench: Workbench, seat: Seat) -> Mapping[Layer, LayerCipher]:
    """A tenant's layers, each by itself, with all data keys that it has. Raises as `vault.Keyring.open_layer`."""
    scope = Scope(account=seat.account_id, tenant=seat.tenant_id)
    async with bench.databases.operation(PROVER, account=seat.account_id, tenant=seat.tenant_id) as op:
        keys = await read_keys(op.connection, scope.id)
    return {layer: await bench.keyring.open_layer(scope, keys, layer) for layer in Layer}


async def misplace(findings: Findings, bench: Workbench, seat: Seat, strangers: Sequence[Seat]) -> Counter[str]:
    """Try a tenant's fields where and how they don't belong, every one of them; how many of each kind were refused."""
    async with bench.databases.operation(PROVER, account=seat.account_id, tenant=seat.tenant_id) as op:
        fields, cipher = await read_fields(op), op.cipher
    others = []
    for stranger in strangers:
        async with bench.databases.operation(PROVER, account=stranger.account_id, tenant=stranger.tenant_id) as op:
            others.append(op.cipher)
    platform = (await open_layers(bench, seat))[Layer.PLATFORM]
    refused: Counter[str] = Counter()
    for field in fields:
        findings.expect(field.refusal(cipher) == "", f"a field of {field.place} does not open where it stands")
        if len(field.envelope) < _SHORTEST:
            findings.breach(f"{field.place} holds something that is no envelope")
            continue
        tried: list[tuple[str, Field, Cipher]] = [("tenant", field, other) for other in others]
        tried += [(kind, moved, cipher) for kind, moved in _moved(field, fields)]
        tried += [(kind, replace(field, envelope=envelope), cipher) for kind, envelope in _damaged(field.envelope)]
        if field.is_sensitive:
            tried += [
                ("layer", replace(field, envelope=envelope), cipher)
                for envelope in _peeled(field, cipher, seat, platform)
            ]
        for kind, wrong, by in tried:
            code = wrong.refusal(by)
            refused[kind] += 1
            findings.expect(
                code == BROKEN,
                f"a field of {field.place} with another {kind} "
                + (f"ends in {code}" if code else f"opens as {wrong.place}"),
            )
    return refused


def _moved(field: Field, fields: Sequence[Field]) -> Iterator[tuple[str, Field]]:
    """The same envelope in other rows, columns and tables."""
    rows = {other.row for other in fields if other.place == field.place} | {_flipped(field.row, at=0)}
    for row in rows - {field.row}:
        yield "row", replace(field, row=row)
    for table, sealed in SEALED_TABLES.items():
        for column in sealed.columns:
            if (table, column) != (field.table, field.column):
                yield "column" if table == field.table else "table", replace(field, table=table, column=column)


def _damaged(envelope: bytes) -> Iterator[tuple[str, bytes]]:
    """Envelopes that say another layer or version of their key, end too early, or have one bit flipped."""
    yield "layer", envelope[:1] + bytes([envelope[1] ^ Layer.PLATFORM.code ^ Layer.CUSTOMER.code]) + envelope[2:]
    version = int.from_bytes(envelope[_VERSION], "big")
    for other in {0, version + 1, (1 << 32) - 1}:
        yield "key version", envelope[:2] + other.to_bytes(4, "big") + envelope[6:]
    head, size = HEADER_BYTES + NONCE_BYTES, len(envelope)
    for end in {0, 1, 6, HEADER_BYTES, head, head + _TAG_BYTES, size // 2, size - _TAG_BYTES, size - 1} - {size}:
        yield "end", envelope[:end]
    yield "end", envelope + b"\0"
    within = [secrets.randbelow(size) for _ in range(16)]
    for at in {*range(head), *within, *range(size - _TAG_BYTES, size)}:
        yield "bit", _flipped(envelope, at=at)


def _peeled(field: Field, cipher: Cipher, seat: Seat, platform: LayerCipher) -> Iterator[bytes]:
    """A sensitive field with one of its two layers only."""
    place = context_of(seat.tenant_id, Layer.PLATFORM, field.table, field.column)
    inner = platform.open(place, field.row, field.envelope)
    if inner is not None:
        yield inner
    yield platform.seal(place, field.row, field.open(cipher))


def _flipped(content: bytes, *, at: int) -> bytes:
    """With one bit of one byte flipped."""
    return content[:at] + bytes([content[at] ^ 1 << secrets.randbelow(8)]) + content[at + 1 :]

"""ENC-2: nothing that describes a transaction stands anywhere in clear, and what is sealed opens nowhere else.

Canaries (a text, a mail address, two account numbers and an amount, fresh in every run) are sent through the public API
on every way in, into two regions. After a checkpoint the installation's whole data directory is read byte for byte
(write-ahead log, temporary files and server log of the database included), and a base backup made for the purpose; what
the database compresses is unpacked by reading every column of every table as administrator. Then come the logs of every
process, the files that they hold open, the machine's temporary files, and its swap. What must be found (the ids of the
run's own API keys, which are in clear by design) is looked for on the same walk, so that a search that saw nothing
can't pass; what this user can't read is said.

Every envelope that this made is then tried where it doesn't belong (another row, column, table, tenant, with one layer,
with another key version) and damaged (cut, a bit flipped). All of it is refused.

Not searched: files on their way to and from banks (`files/outbox`, `files/inbox`), which are in clear by nature, and
the database's programs.
"""

from __future__ import annotations

import asyncio
import secrets
import string
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import msgspec

from strongroom.database import EmbeddedServer
from strongroom.database.databases import DIRECTORY
from strongroom.payments.contents import order_id_of
from strongroom.payments.customers import customer_id_of
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER
from strongroom.trust.backups import base_backup, files_below
from strongroom.trust.bank import SETTINGS, statement
from strongroom.trust.client import Caller, codes
from strongroom.trust.columns import search_columns
from strongroom.trust.places import search_around
from strongroom.trust.sealed_fields import BROKEN, misplace
from strongroom.trust.searching import Pattern, Search, amount_patterns, text_patterns
from strongroom.trust.stage import PROVER, Stage, stage
from strongroom.trust.verdicts import CannotTell, Figure, Findings
from strongroom.trust.workbench import Workbench

_BANK_CODE: Final = "37040044"
_FAR_OFF: Final = "2099-12-31"
_ORDERS: Final = "/v1/order-management"
_JSON: Final = "application/json"
_NDJSON: Final = "application/x-ndjson"
_KIB: Final = 1 << 10
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Canaries:
    """Values that exist nowhere else. `text` is part of every reference, name, address and note."""

    text: str
    mailbox: str
    account: str
    number: str
    minor: int

    @property
    def amount(self) -> Decimal:
        """The amount in major units."""
        return Decimal(self.minor).scaleb(-2)

    @property
    def iban(self) -> str:
        """An IBAN with the account number in it and right check digits (ISO 13616, ISO 7064 MOD 97-10)."""
        bban = _BANK_CODE + self.account
        return f"DE{98 - int(bban + '131400') % 97:02}{bban}"

    @property
    def mail(self) -> str:
        """A mail address."""
        return f"{self.mailbox}@example.org"

    @property
    def patterns(self) -> Sequence[Pattern]:
        """All that is looked for."""
        return [
            *text_patterns("text", self.text),
            Pattern("text, in small letters", self.text.lower().encode()),
            *text_patterns("mail address", self.mailbox),
            *text_patterns("IBAN", self.account),
            *text_patterns("account number", self.number),
            *amount_patterns("amount", self.amount, self.minor),
        ]

    def count_in(self, content: bytes) -> int:
        """How many of them a request carries."""
        values = (self.text, self.mail, self.iban, self.number, str(self.amount))
        return sum(content.count(value.encode()) for value in values)


def draw_canaries() -> Canaries:
    """Fresh ones. No byte of the amount is zero, so that it can be told from padding in every form."""
    while True:
        minor = 10_000_000_000_000 + secrets.randbelow(89_999_999_999_999)
        if 0 not in minor.to_bytes(6, "big") and minor % 100:
            break
    letters = string.ascii_uppercase + string.digits
    return Canaries(
        text="".join(secrets.choice(letters) for _ in range(14)),
        mailbox="".join(secrets.choice(letters.lower()) for _ in range(14)),
        account=f"{1 + secrets.randbelow(9)}{secrets.randbelow(10**9):09}",
        number=f"{1 + secrets.randbelow(9)}{secrets.randbelow(10**14):014}",
        minor=minor,
    )


async def check_at_rest(bench: Workbench) -> Figure:
    """See the module."""
    if bench.server is None:
        raise CannotTell("The database is on a server of your own, whose files can't be read from here.")
    canaries, planted, since_s = draw_canaries(), 0, time.time()
    findings = Findings()
    async with stage(bench) as scene:
        seats = (scene.here, scene.abroad)
        for seat in seats:
            planted += await _plant(await scene.caller(seat), canaries)
        refused = await misplace(findings, bench, scene.here, [scene.abroad, scene.other])
        refused["place in the running system"] += await _swap(findings, bench, scene, canaries)
        async with bench.admin(DIRECTORY) as connection:
            await connection.execute("checkpoint")
        known = [seat.key.public_key.bytes for seat in seats]
        around = await asyncio.to_thread(search_around, bench, canaries.patterns, since_s)
        searches = [
            await search_columns(bench, findings, Search("every column", canaries.patterns, known)),
            *await asyncio.to_thread(search_files, bench, bench.server, canaries.patterns, known),
            *around.searches,
        ]
    for search in searches:
        findings.expect(search.saw_everything, f"the search of {search.place} did not see what it has to see")
        for found in search.found:
            findings.breach(f"found in clear: {found}")
    places = ", ".join([*(f"{search.place} {_volume(search.size)}" for search in searches), *around.unread])
    return findings.figure(
        f"{planted} canaries, {_volume(sum(search.size for search in searches))} searched ({places}), 0 found; "
        f"{refused.total():,} envelopes in a wrong place or damaged, all refused ({', '.join(refused)})"
    )


def _volume(size: int) -> str:
    """Bytes, for people."""
    if size >= _GIB:
        return f"{size / _GIB:.2f} GiB"
    return f"{size / _MIB:.0f} MiB" if size >= _MIB else f"{size / _KIB:.0f} KiB"


async def _plant(caller: Caller, canaries: Canaries) -> int:
    """Send canaries on every way in; returns how many there were."""
    text, amount = canaries.text, str(canaries.amount)
    customer, order = f"{text}-customer", f"{text}-order"
    note = {f"{text}-key": f"{text} paid to {canaries.iban}", "mail": canaries.mail}
    person = {
        "accountHolderName": f"Ada {text}",
        "address": {"streetAddress": f"{text} Street 1", "locality": text, "postCode": "50667", "country": "DE"},
    }
    planted = 0

    def instruction(ref: str) -> dict[str, Any]:
        return {
            "instructionRef": f"{text}-{ref}",
            "customerRef": customer,
            "direction": "CREDIT",
            "amount": amount,
            "currency": "EUR",
            "country": "DE",
            "settledByDate": _FAR_OFF,
            "metadata": note,
        }

    async def send(method: str, path: str, body: object, *, media: str = _JSON, fails: bool = False) -> None:
        nonlocal planted
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        planted += canaries.count_in(content)
        if fails:
            await caller.send(method, path, content, content_type=media)
        else:
            await caller.done(method, path, content, content_type=media)

    vault = f"/v1/customer-vault/{customer}"
    iban = {"type": "BANK_ACCOUNT", "iban": canaries.iban, **person}
    number = {"type": "BANK_ACCOUNT", "accountNumber": canaries.number, "bankCode": "110000", "country": "US", **person}
    whole = {
        "orderRef": order,
        "metadata": note,
        "customerDefaults": {customer: {"metadata": note}},
        "instructions": [instruction("first")],
    }
    line = {"orderRef": f"{text}-bulk", **instruction("line"), "bankAccount": iban}
    row = {
        "orderRef": f"{text}-bulk", "instructionRef": f"{text}-row", "customerRef": customer, "direction": "CREDIT",
        "amount": amount, "currency": "EUR", "country": "DE", "settledByDate": _FAR_OFF, "accountHolder": f"Ada {text}",
        "iban": canaries.iban,
    }  # fmt: skip
    table = f"{','.join(row)}\n{','.join(row.values())}\n"
    await send("POST", _ORDERS, whole)
    await send("POST", f"{_ORDERS}/{order}/instruction", instruction("second"))
    await send("PUT", f"{_ORDERS}/{order}/instruction/{text}-second", {"amount": amount, "metadata": note})
    await send("POST", f"{_ORDERS}/{order}/instruction/{text}-second/cancel", {"reason": f"{text} changed their mind"})
    await send("PUT", f"{_ORDERS}/{order}/metadata", note)
    await send("PUT", f"{_ORDERS}/{order}/customer-defaults/{customer}", {"metadata": note})
    await send("POST", f"{vault}/financial-instrument", iban)
    await send("POST", f"{vault}/financial-instrument", number)
    await send("PUT", vault, note)
    await send("PUT", vault, {"email": canaries.mail, "metadata": note})
    await send("POST", f"{vault}/open", {"fields": ["email", "iban"], "purpose": "customer-service", "reason": text})
    for by, value in (("email", canaries.mail), ("iban", canaries.iban), ("customerRef", customer)):
        planted += 1
        await caller.done("GET", f"/v1/customer-vault?{urlencode({by: value})}")
    await send("POST", f"{_ORDERS}/bulk", msgspec.json.encode(line), media=_NDJSON)
    await send("POST", f"{_ORDERS}/bulk", table.encode(), media="text/csv")
    settings = {"holder": f"Ada {text}", "iban": canaries.iban, **SETTINGS}
    await send("POST", f"/v1/marketplace/apps/{SEPA_CREDIT_TRANSFER}/install", b"")
    await send("POST", f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", settings)
    report = statement(iban=canaries.iban, amount=canaries.amount, text=f"{text} paid in", day=caller.today)
    await send("POST", "/v1/reconciliation/reports", report, media="application/xml")
    # What is refused must leave nothing behind either.
    await send("POST", _ORDERS, whole, fails=True)
    await send("POST", _ORDERS, {**whole, "orderRef": f"{text} {canaries.iban}"}, fails=True)
    await send("POST", f"{_ORDERS}/bulk", msgspec.json.encode({**line, "amount": f"{amount}9"}), media=_NDJSON)
    keyed = {**whole, "orderRef": f"{text}-keyed"}
    planted += canaries.count_in(msgspec.json.encode(keyed)) + 1
    await caller.send("POST", _ORDERS, keyed, idempotency_key=f"{text}-key")
    return planted


async def _swap(findings: Findings, bench: Workbench, scene: Stage, canaries: Canaries) -> int:
    """Exchange envelopes in the database, and ask the API for what they hold; how many were refused.

    Two orders get each other's, a customer's sensitive part gets what is not, and back.
    """
    caller, tenant = await scene.caller(scene.here), scene.here.tenant_id
    first, second = (f"{_ORDERS}/{canaries.text}-{name}" for name in ("order", "keyed"))
    customer = f"/v1/customer-vault/{canaries.text}-customer"
    swaps = {
        "update orders o set sealed = (select p.sealed from orders p where p.tenant_id = o.tenant_id "
        "and p.order_id = any(%(rows)s) and p.order_id <> o.order_id) where tenant_id = %(tenant)s "
        "and order_id = any(%(rows)s)": ("orders", [first, second]),
        "update customers set sealed = sensitive, sensitive = sealed where tenant_id = %(tenant)s "
        "and customer_id = any(%(rows)s)": ("customers", [customer]),
    }
    async with bench.databases.operation(PROVER, tenant=tenant) as op:
        rows = {
            "orders": [order_id_of(op, path.rpartition("/")[2]) for path in (first, second)],
            "customers": [customer_id_of(op, customer.rpartition("/")[2])],
        }
    refused = 0
    async with bench.admin(scene.here.region) as connection:
        for statement, (table, paths) in swaps.items():
            given = {"tenant": tenant, "rows": [UUID(bytes=row) for row in rows[table]]}
            for is_wrong in (True, False):
                await connection.execute(statement.encode(), given)
                for path in paths:
                    answer = await caller.send("GET", path)
                    if is_wrong:
                        findings.expect(
                            answer.status >= 500 and BROKEN in codes(answer),
                            f"GET {path.rpartition('/')[0]}/… with another's envelope is answered {answer.status}",
                        )
                        refused += 1
                    else:
                        findings.expect(
                            answer.status == 200, f"a field put back of {table} does not open: nothing is shown"
                        )
    return refused


def search_files(
    bench: Workbench,
    server: EmbeddedServer,
    patterns: Sequence[Pattern],
    known: Sequence[bytes],
    kind: type[Search] = Search,
) -> Sequence[Search]:
    """Look through the data directory, the write-ahead log and a base backup made for the purpose."""
    root = bench.config.data_dir
    write_ahead = server.data / "pg_wal"
    left_out = {
        write_ahead, server.directory / "engine", bench.config.files_dir / "outbox", bench.config.files_dir / "inbox",
    }  # fmt: skip
    directory, log = kind("data directory", patterns, known), kind("write-ahead log", patterns, known)
    _walk(directory, root, frozenset(left_out))
    _walk(log, write_ahead)
    backup = kind("backup", patterns, known)
    with base_backup(server) as place:
        _walk(backup, place)
    return [directory, log, backup]


def _walk(search: Search, root: Path, left_out: frozenset[Path] = frozenset()) -> None:
    for path in files_below(root, left_out):
        # Temporary files come and go while the server runs.
        with suppress(FileNotFoundError):
            search.file(path, f"{search.place}, {path.relative_to(root)}")

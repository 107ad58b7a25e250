"""A tenant that pays by file, and its bank: payments out, statements back, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from uuid import UUID

from strongroom.assembly import App
from strongroom.database import pack_bytes, pack_uuids
from strongroom.kernel.ids import new_uuid
from strongroom.payments import apps, schemes
from strongroom.payments.contents import NewInstruction, NewOrder, decode_instruction
from strongroom.payments.dispatch import Dispatcher
from strongroom.payments.instructions import TransactionContent
from strongroom.payments.instruments import NewBankAccount, add_many
from strongroom.payments.orders import create_orders
from strongroom.payments.transactions import seal_content
from strongroom.rails.bank.simulator import Behaviour, answer_outbox
from strongroom.reconciliation import Imported, ImportResult, import_inbox, import_report, read_report
from strongroom.reconciliation.breaks import CurrencySummary, summarise
from tests.fixtures.platform import Client
from tests.payments.world import SEPA, World, bank_account, draft, rule

OWN = "DE02120300000000202051"
FOREIGN = "NL91ABNA0417164300"
SETTINGS = {"iban": OWN, "holder": "Alpine Mutual", "bic": "BYLADEM1001", "batchBooking": "false"}
READER, WRITER, OPENER = "tenant-transaction-read", "tenant-transaction-write", "tenant-vault-open"


@dataclass(frozen=True)
class Paid:
    """A payment that is in a file: its transaction, our reference to it, and its amount in cents."""

    transaction_id: UUID
    minor: int
    file_id: UUID

    @property
    def reference(self) -> str:
        return self.transaction_id.hex


@dataclass(frozen=True)
class BankWorld(World):
    """A tenant with a file rail, its folders, and a bank that keeps its own books."""

    files: Path
    scheme_id: str

    @classmethod
    async def open(cls, app: App, client: Client, files: Path, **settings: str) -> BankWorld:
        world = World.of(app, client)
        async with world.operation() as op:
            await apps.install(op, SEPA)
            await apps.configure(op, SEPA, SETTINGS | settings)
            scheme = await schemes.create_scheme(op, "payout", draft("Claims", rule(0, SEPA)))
            await schemes.publish(op, "payout", scheme.scheme_id, str(scheme.drafts[0].draft_id))
        return cls(world.app, world.tenant, world.account, files, scheme.scheme_id)

    @property
    def inbox(self) -> Path:
        return self.files / "inbox" / str(self.tenant)

    async def instruct(self, *payments: tuple[str, int], days: int = 0) -> None:
        """Instructions to pay these holders these cents, `days` from now."""
        holders = list(dict.fromkeys(holder for holder, _ in payments))
        new = [NewBankAccount(account=bank_account(holder).account, country="DE") for holder in holders]
        async with self.operation() as op:
            made = await add_many(op, [(f"C-{n}", account) for n, account in enumerate(new)])
            accounts = {
                holder: (f"C-{n}", account) for n, (holder, account) in enumerate(zip(holders, made, strict=True))
            }
            lines = [
                NewInstruction(
                    ref=str(n),
                    customer_ref=accounts[holder][0],
                    direction="CREDIT",
                    minor=minor,
                    currency="EUR",
                    country="DE",
                    settled_by=op.today + timedelta(days=days),
                    scheme_id=self.scheme_id,
                    financial_instrument_id=accounts[holder][1],
                )
                for n, (holder, minor) in enumerate(payments)
            ]
            verdicts = await create_orders(op, [NewOrder(new_uuid().hex, lines)], [""])
        assert not [verdict for verdict in verdicts if isinstance(verdict, Exception)], verdicts

    async def dispatch(self) -> list[Path]:
        """Rounds until nothing is due; the files that were written."""
        dispatcher = Dispatcher(self.app.databases, self.app.provider, self.files / "outbox")
        written: list[Path] = []
        while not (tally := await dispatcher.round(self.tenant)).idle:
            written += tally.files
        return written

    async def pay(self, *payments: tuple[str, int]) -> list[Paid]:
        """Instruct and dispatch; the payments in the same order."""
        before = {paid.transaction_id for paid in await self.paid()}
        await self.instruct(*payments)
        await self.dispatch()
        made = [paid for paid in await self.paid() if paid.transaction_id not in before]
        assert len(made) == len(payments)
        by_amount = {paid.minor: paid for paid in made}
        return [by_amount[minor] for _, minor in payments] if len(by_amount) == len(payments) else made

    async def hand_over(self, *payments: tuple[str, int]) -> list[Paid]:
        """As `pay`, for thousands: their rows are written as after a dispatch, without a file's content."""
        await self.instruct(*payments)
        file_id = new_uuid()
        async with self.operation() as op:
            rows = await op.rows(
                "update instructions set status = 'PROCESSING' where tenant_id = %s and status = 'READY' "
                "returning order_id, instruction_id",
                self.tenant,
            )
            ids = [new_uuid() for _ in rows]
            await op.run(
                "insert into payment_files (tenant_id, file_id, app_id, status, sealed, created_at, updated_at) "
                "values (%s, %s, %s, 'DELIVERED', '', %s, %s)",
                self.tenant,
                file_id,
                SEPA,
                op.now,
                op.now,
            )
            await op.run(
                "insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, file_id, "
                "status, sealed, created_at, updated_at) select %s, t, o, i, %s, %s, 'PROCESSING', s, %s, %s "
                "from unnest(%s, %s, %s, %s) as n(t, o, i, s)",
                self.tenant,
                SEPA,
                file_id,
                op.now,
                op.now,
                pack_uuids([transaction_id.bytes for transaction_id in ids]),
                pack_uuids([row[0].bytes for row in rows]),
                pack_uuids([row[1].bytes for row in rows]),
                pack_bytes([seal_content(op, transaction_id, TransactionContent()) for transaction_id in ids]),
            )
        return await self.paid()

    async def paid(self) -> list[Paid]:
        async with self.operation() as op:
            rows = await op.rows(
                "select transaction_id, instruction_id, i.sealed, file_id from transactions "
                "join instructions i using (tenant_id, order_id, instruction_id) where tenant_id = %s "
                "order by transaction_id",
                self.tenant,
            )
            opened = [op.cipher.open("instructions", "sealed", row[1].bytes, row[2]) for row in rows]
        return [Paid(row[0], decode_instruction(one).minor, row[3]) for row, one in zip(rows, opened, strict=True)]

    def answer(self, **behaviour: object) -> list[Path]:
        """Let the bank simulator answer what lies in the outbox."""
        return answer_outbox(
            self.files / "outbox" / str(self.tenant),
            self.inbox,
            books_dir=self.files / "bank",
            at=datetime.now(UTC),
            behaviour=Behaviour(**behaviour),  # type: ignore[arg-type]  # passed through
        )

    async def sweep(self) -> list[ImportResult]:
        return await import_inbox(self.app.databases, self.files)

    async def take_in(self, document: bytes, *roles: str) -> Sequence[Imported]:
        """Import a report, as one of our processes or by a key with these roles."""
        async with self.operation(*roles) as op:
            return await import_report(op, read_report(document))

    async def states(self) -> dict[str, tuple[str, str]]:
        """Reference → the states of transaction and instruction."""
        async with self.operation() as op:
            rows = await op.rows(
                "select t.transaction_id, t.status, i.status from transactions t "
                "join instructions i using (tenant_id, order_id, instruction_id) where t.tenant_id = %s",
                self.tenant,
            )
        return {row[0].hex: (row[1], row[2]) for row in rows}

    async def events(self, paid: Paid) -> list[tuple[str, str]]:
        """What happened to a payment's instruction, in order: state and reason."""
        async with self.operation() as op:
            rows = await op.rows(
                "select status, reason from instruction_events where tenant_id = %s and transaction_id = %s "
                "order by event_id",
                self.tenant,
                paid.transaction_id,
            )
        return [tuple(row) for row in rows]

    async def stored(self) -> tuple[int, int]:
        """How many reports and lines there are."""
        async with self.operation() as op:
            row = await op.row(
                "select (select count(*) from statements where tenant_id = %s and kind <> 'FILE'), "
                "(select count(*) from statement_entries where tenant_id = %s)",
                self.tenant,
                self.tenant,
            )
        assert row is not None
        return row[0], row[1]

    async def summary(self) -> CurrencySummary:
        async with self.operation(READER) as op:
            [summary] = await summarise(op)
        return summary


# Reports, in the words of camt version 8 and pain.002 version 10


def tx(
    minor: int | None,
    *,
    end_to_end: str = "",
    instruction: str = "",
    batch: str = "",
    message: str = "",
    credit: bool = False,
    returned: str = "",
    currency: str = "EUR",
) -> str:
    """A transaction's details."""
    refs = _put("MsgId", message) + _put("PmtInfId", batch) + _put("InstrId", instruction)
    refs += _put("EndToEndId", end_to_end)
    money = "" if minor is None else _amount("Amt", minor, currency)
    indicator = f"<CdtDbtInd>{'CRDT' if credit else 'DBIT'}</CdtDbtInd>"
    back = f"<RtrInf><Rsn><Cd>{returned}</Cd></Rsn><AddtlInf>account closed</AddtlInf></RtrInf>" if returned else ""
    return f"<TxDtls><Refs>{refs}</Refs>{money}{indicator}<RmtInf><Ustrd>Claim</Ustrd></RmtInf>{back}</TxDtls>"


def entry(
    minor: int,
    *details: str,
    credit: bool = False,
    status: str = "BOOK",
    reversal: bool = False,
    code: str = "ESCT",
    batches: Sequence[tuple[str, str]] = (),
    reference: str = "BANK-1",
    booked: str = "2026-11-20",
    currency: str = "EUR",
) -> tuple[str, int]:
    """An entry, and what it does to the booked balance. `batches`: message id and batch id."""
    groups = "".join(f"<Btch>{_put('MsgId', message)}{_put('PmtInfId', batch)}</Btch>" for message, batch in batches)
    inside = f"<NtryDtls>{groups}{''.join(details)}</NtryDtls>" if groups or details else ""
    xml = f"""<Ntry>{_amount("Amt", minor, currency)}<CdtDbtInd>{"CRDT" if credit else "DBIT"}</CdtDbtInd>
      {"<RvslInd>true</RvslInd>" if reversal else ""}<Sts><Cd>{status}</Cd></Sts>
      {f"<BookgDt><Dt>{booked}</Dt></BookgDt>" if booked else ""}<AcctSvcrRef>{reference}</AcctSvcrRef>
      <BkTxCd><Domn><Cd>PMNT</Cd><Fmly><Cd>ICDT</Cd><SubFmlyCd>{code}</SubFmlyCd></Fmly></Domn></BkTxCd>{inside}</Ntry>"""
    return xml, (minor if credit else -minor) if status == "BOOK" else 0


def execution(paid: Paid, minor: int | None = None, **more: object) -> tuple[str, int]:
    """The debit of one payment."""
    amount = paid.minor if minor is None else minor
    return entry(amount, tx(amount, end_to_end=paid.reference), **more)  # type: ignore[arg-type]  # passed through


def give_back(paid: Paid, code: str = "AC06", minor: int | None = None) -> tuple[str, int]:
    """The credit of a returned payment."""
    amount = paid.minor if minor is None else minor
    detail = tx(amount, end_to_end=paid.reference, credit=True, returned=code)
    return entry(amount, detail, credit=True, code="RRTN")


def statement(
    *entries: tuple[str, int],
    name: str = "S-1",
    sequence: int | None = 1,
    opening: int = 1_000_000,
    iban: str = OWN,
    error: int = 0,
    copy: str = "",
    at: str = "2026-11-20T18:00:00Z",
) -> bytes:
    """A camt.053 file with one statement; `error` is added to its closing balance."""
    return file_of(
        part(*entries, name=name, sequence=sequence, opening=opening, iban=iban, error=error, copy=copy), at=at
    )


def part(
    *entries: tuple[str, int],
    name: str = "S-1",
    sequence: int | None = 1,
    opening: int = 1_000_000,
    iban: str = OWN,
    error: int = 0,
    copy: str = "",
) -> str:
    """One statement of a file."""
    closing = opening + sum(effect for _, effect in entries) + error
    return f"""<Stmt><Id>{name}</Id>{_put("ElctrncSeqNb", "" if sequence is None else str(sequence))}
      <CreDtTm>2026-11-20T18:00:00Z</CreDtTm>{_put("CpyDplctInd", copy)}
      <Acct><Id><IBAN>{iban}</IBAN></Id></Acct>
      {_balance("OPBD", opening)}{_balance("CLBD", closing)}{"".join(xml for xml, _ in entries)}</Stmt>"""


def file_of(*parts: str, at: str = "2026-11-20T18:00:00Z") -> bytes:
    """A camt.053 file with these statements."""
    return _document("camt.053.001.08", "BkToCstmrStmt", "".join(parts), at)


def notification(*entries: tuple[str, int], name: str = "N-1", iban: str = OWN) -> bytes:
    """A camt.054 file with one notification."""
    body = f"""<Ntfctn><Id>{name}</Id><Acct><Id><IBAN>{iban}</IBAN></Id></Acct>
      {"".join(xml for xml, _ in entries)}</Ntfctn>"""
    return _document("camt.054.001.08", "BkToCstmrDbtCdtNtfctn", body, "2026-11-20T12:00:00Z")


def status_report(
    message: str,
    *statuses: tuple[str, str, str, str],
    group: str = "",
    reason: str = "",
    batches: Sequence[tuple[str, str]] = (),
    name: str = "R-1",
) -> bytes:
    """A pain.002 file. `statuses`: batch id, end-to-end id, status, reason; `batches`: batch id, status."""
    by_batch: dict[str, str] = {batch: _put("PmtInfSts", status) for batch, status in batches}
    for batch, end_to_end, status, why in statuses:
        inside = f"<OrgnlEndToEndId>{end_to_end}</OrgnlEndToEndId>{_put('TxSts', status)}{_because(why)}"
        by_batch[batch] = by_batch.get(batch, "") + f"<TxInfAndSts>{inside}</TxInfAndSts>"
    rest = "".join(
        f"<OrgnlPmtInfAndSts><OrgnlPmtInfId>{batch}</OrgnlPmtInfId>{inside}</OrgnlPmtInfAndSts>"
        for batch, inside in by_batch.items()
    )
    body = f"""<OrgnlGrpInfAndSts><OrgnlMsgId>{message}</OrgnlMsgId><OrgnlMsgNmId>pain.001</OrgnlMsgNmId>
      {_put("GrpSts", group)}{_because(reason)}</OrgnlGrpInfAndSts>{rest}"""
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.002.001.10"><CstmrPmtStsRpt><GrpHdr><MsgId>{name}</MsgId>
  <CreDtTm>2026-11-20T09:00:00Z</CreDtTm></GrpHdr>{body}</CstmrPmtStsRpt></Document>""".encode()


def _because(code: str) -> str:
    return f"<StsRsnInf><Rsn><Cd>{code}</Cd></Rsn></StsRsnInf>" if code else ""


def _document(message: str, root: str, body: str, at: str) -> bytes:
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:{message}"><{root}><GrpHdr><MsgId>M-{at}</MsgId>
  <CreDtTm>{at}</CreDtTm></GrpHdr>{body}</{root}></Document>""".encode()


def _balance(code: str, minor: int) -> str:
    indicator = "CRDT" if minor >= 0 else "DBIT"
    return f"""<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{_amount("Amt", abs(minor))}
      <CdtDbtInd>{indicator}</CdtDbtInd><Dt><Dt>2026-11-20</Dt></Dt></Bal>"""


def _amount(tag: str, minor: int, currency: str = "EUR") -> str:
    return f'<{tag} Ccy="{currency}">{Decimal(minor).scaleb(-2)}</{tag}>'


def _put(tag: str, value: str) -> str:
    return f"<{tag}>{value}</{tag}>" if value else ""

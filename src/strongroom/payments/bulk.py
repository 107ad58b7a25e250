"""Bulk: many orders and instructions in one upload, each line with its own verdict.

A line is a whole order (made as by a single request) or one instruction (its order is made when unknown). Lines are
written in chunks: a chunk's orders, its results and the job's progress are one operation, so that after a crash the
job says exactly how far it came. Sending the same upload again with the same key goes on from there; the digest of the
lines already done makes sure that it is the same upload.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import Entry, record_many
from strongroom.database import Operation
from strongroom.kernel.errors import AlreadyExists, Failure, Forbidden, InFlight, Invalid, NotFound, StrongroomError
from strongroom.kernel.ids import JobId, new_uuid
from strongroom.payments import _writing
from strongroom.payments.ceilings import open_ledger
from strongroom.payments.contents import NewInstruction, NewOrder, OrderContent, encode, order_id_of
from strongroom.payments.customers import customer_id_of
from strongroom.payments.instructions import find_defaults, taken
from strongroom.payments.instruments import NewBankAccount, add_many
from strongroom.payments.orders import create_orders

STALE_AFTER: Final = timedelta(seconds=20)
"""A running job that has not moved for so long was interrupted."""


class InstructionLine(msgspec.Struct, frozen=True, gc=False):
    """A line that holds one instruction."""

    order_ref: str
    instruction: NewInstruction
    bank_account: NewBankAccount | None = None


Line = NewOrder | InstructionLine


class LineResult(msgspec.Struct, rename="camel", omit_defaults=True, gc=False):
    """A line's verdict. `line` counts from 1, a CSV's header included."""

    line: int
    status: str
    order_ref: str = ""
    instruction_ref: str = ""
    errors: Sequence[dict[str, Any]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """An upload's progress."""

    job_id: JobId
    status: str
    digest: bytes
    lines_done: int
    accepted: int
    refused: int
    created_at: datetime
    updated_at: datetime


_JOB_COLUMNS: Final = "job_id, status, sealed, lines_done, accepted, refused, created_at, updated_at"
_encode_result = msgspec.json.Encoder(decimal_format="number").encode


async def begin_job(op: Operation, key: str | None) -> Job:
    """A new job, or the one that was begun with this key.

    Raises errors.InFlight (`BULK_IN_FLIGHT`) when that one is still running.
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    key_hash = None if key is None else op.cipher.index("bulk_jobs", "key_hash", key)
    job_id = new_uuid()
    made = await op.row(
        "insert into bulk_jobs (tenant_id, job_id, key_hash, sealed, status, lines_done, accepted, refused, "  # noqa: S608  # constants
        "created_at, updated_at) values (%s, %s, %s, %s, 'RUNNING', 0, 0, 0, %s, %s) on conflict do nothing "
        f"returning {_JOB_COLUMNS}",
        op.tenant,
        job_id,
        key_hash,
        op.cipher.seal("bulk_jobs", "sealed", job_id.bytes, b""),
        op.now,
        op.now,
    )
    if made is not None:
        await record_many(op, [Entry("bulk.begin", "bulk-job", str(job_id), correlation_id=op.correlation_id)])
        return _job(op, made)
    found = await op.row(f"select {_JOB_COLUMNS} from bulk_jobs where key_hash = %s for update", key_hash)  # noqa: S608  # constants
    if found is None:
        raise LookupError("the job that has the key has gone")
    job = _job(op, found)
    if job.status == "RUNNING" and op.now - job.updated_at < STALE_AFTER:
        raise InFlight(
            Failure(
                "BULK_IN_FLIGHT",
                "The upload with this Idempotency-Key is still running as job {jobId}. Follow it, or try again in "
                "{seconds} seconds.",
                {"jobId": str(job.job_id), "seconds": int(STALE_AFTER.total_seconds())},
            )
        )
    if job.status != "COMPLETED":
        await op.run("update bulk_jobs set status = 'RUNNING', updated_at = %s where job_id = %s", op.now, job.job_id)
    return job


async def write_lines(
    op: Operation, job_id: UUID, lines: Sequence[tuple[int, Line | StrongroomError]], done: int, digest: bytes
) -> tuple[int, int]:
    """Write a chunk `(line number, line or why it can't be read)` with its results; returns (accepted, refused).

    `done` and `digest` say how far the upload is after this chunk.
    """
    require(op, Permission.TRANSACTIONS_WRITE)
    verdicts: dict[int, StrongroomError] = {number: line for number, line in lines if isinstance(line, StrongroomError)}
    orders = [(number, line) for number, line in lines if isinstance(line, NewOrder)]
    if orders:
        made = await create_orders(op, [order for _, order in orders], [op.correlation_id] * len(orders), job_id)
        verdicts |= {
            number: verdict
            for (number, _), verdict in zip(orders, made, strict=True)
            if isinstance(verdict, StrongroomError)
        }
    instructions = [(number, line) for number, line in lines if isinstance(line, InstructionLine)]
    if instructions:
        verdicts |= await _write_instructions(op, instructions, job_id)
    results = b"\n".join([_encode_result(_result(number, line, verdicts.get(number))) for number, line in lines])
    refused = len(verdicts)
    accepted = len(lines) - refused
    if lines:
        row_id = job_id.bytes + lines[0][0].to_bytes(8, "big")
        await op.run(
            "insert into bulk_results (tenant_id, job_id, first_line, last_line, sealed) values (%s, %s, %s, %s, %s)",
            op.tenant,
            job_id,
            lines[0][0],
            lines[-1][0],
            op.cipher.seal("bulk_results", "sealed", row_id, zlib.compress(results, 1)),
        )
    moved = await op.run(
        "update bulk_jobs set lines_done = %s, sealed = %s, accepted = accepted + %s, refused = refused + %s, "
        "updated_at = %s where job_id = %s and lines_done < %s",
        done,
        op.cipher.seal("bulk_jobs", "sealed", job_id.bytes, digest),
        accepted,
        refused,
        op.now,
        job_id,
        done,
    )
    if not moved:
        raise InFlight(Failure("BULK_IN_FLIGHT", "Another request is writing the same lines of this job."))
    detail = f"accepted={accepted} refused={refused}"
    await record_many(op, [Entry("bulk.write", "bulk-job", str(job_id), "done", detail, op.correlation_id)])
    return accepted, refused


async def end_job(op: Operation, job_id: UUID, status: str) -> Job:
    """Mark a job COMPLETED or INTERRUPTED."""
    row = await op.row(
        f"update bulk_jobs set status = %s, updated_at = %s where job_id = %s returning {_JOB_COLUMNS}",  # noqa: S608  # constants
        status,
        op.now,
        job_id,
    )
    if row is None:
        raise job_not_found()
    return _job(op, row)


async def get_job(op: Operation, job_id: UUID) -> Job:
    """A job's progress. Raises errors.NotFound (`BULK_JOB_NOT_FOUND`)."""
    require(op, Permission.TRANSACTIONS_READ)
    row = await op.row(f"select {_JOB_COLUMNS} from bulk_jobs where job_id = %s", job_id)  # noqa: S608  # constants
    if row is None:
        raise job_not_found()
    job = _job(op, row)
    if job.status == "RUNNING" and op.now - job.updated_at >= STALE_AFTER:
        return Job(**{name: getattr(job, name) for name in Job.__slots__} | {"status": "INTERRUPTED"})
    return job


async def read_results(op: Operation, job_id: UUID, after_line: int) -> tuple[bytes, int | None]:
    """The results after a line, as NDJSON, a page at a time; with the line to go on after, or None at the end."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows(
        "select first_line, last_line, sealed from bulk_results where job_id = %s and first_line > %s "
        "order by first_line limit %s",
        job_id,
        after_line,
        RESULT_CHUNKS + 1,
    )
    parts = [
        zlib.decompress(op.cipher.open("bulk_results", "sealed", job_id.bytes + first.to_bytes(8, "big"), sealed))
        for first, _, sealed in rows[:RESULT_CHUNKS]
    ]
    following = rows[RESULT_CHUNKS - 1][1] if len(rows) > RESULT_CHUNKS else None
    return b"".join(part + b"\n" for part in parts), following


RESULT_CHUNKS: Final = 20
"""Chunks of results in one page."""


def job_not_found() -> NotFound:
    """The refusal when there is no such job."""
    return NotFound(Failure("BULK_JOB_NOT_FOUND", "There is no such bulk job in this tenant."))


async def _write_instructions(
    op: Operation, lines: Sequence[tuple[int, InstructionLine]], job_id: UUID
) -> dict[int, StrongroomError]:
    """Write instruction lines, orders and bank accounts made as needed; returns why not, by line number."""
    verdicts: dict[int, StrongroomError] = {}
    with_accounts = [(line.instruction.customer_ref, line.bank_account) for _, line in lines if line.bank_account]
    accounts = iter(await add_many(op, with_accounts)) if with_accounts else iter(())
    chosen: list[tuple[int, InstructionLine, NewInstruction]] = []
    for number, line in lines:
        instruction = line.instruction
        if line.bank_account is not None:
            instruction = msgspec.structs.replace(instruction, financial_instrument_id=next(accounts))
        chosen.append((number, line, instruction))
    ids = {
        number: (order_id_of(op, line.order_ref), customer_id_of(op, line.instruction.customer_ref))
        for number, line in lines
    }
    defaults = await find_defaults(op, set(ids.values()))
    known = await _writing.look_up(op, [instruction for _, _, instruction in chosen], defaults.values())
    ledger = await open_ledger(op)
    orders: dict[bytes, _writing.OrderRow] = {}
    rows: dict[bytes, tuple[int, _writing.InstructionRow, NewInstruction]] = {}
    customers: dict[tuple[bytes, bytes], str] = {}
    for number, line, instruction in chosen:
        order_id, _ = ids[number]
        given = defaults.get(ids[number], _writing.NO_DEFAULTS)
        try:
            row = _writing.make_row(
                op, instruction, order_ref=line.order_ref, order_id=order_id, defaults=given, known=known
            )
            if row.instruction_id not in rows:
                ledger.admit(op, [instruction])
        except (Forbidden, Invalid) as error:
            verdicts[number] = error
            continue
        if row.instruction_id in rows:
            verdicts[number] = AlreadyExists(
                Failure(
                    "INSTRUCTION_ALREADY_EXISTS",
                    "The order has an instruction {instructionRef} already. Use another instructionRef.",
                    {"instructionRef": instruction.ref},
                )
            )
            continue
        rows[row.instruction_id] = (number, row, instruction)
        customers[row.customer_id, order_id] = instruction.customer_ref
        if order_id not in orders:
            content = encode(OrderContent(line.order_ref, {}))
            orders[order_id] = _writing.OrderRow(order_id, op.cipher.seal("orders", "sealed", order_id, content))
    if not rows:
        return verdicts
    new = await _writing.add_instructions(
        op, list(orders.values()), [row for _, row, _ in rows.values()], customers, batch=job_id
    )
    entries = []
    for instruction_id, (number, row, instruction) in rows.items():
        if instruction_id in new:
            entries.append(
                Entry("instruction.create", "instruction", instruction_id.hex(), correlation_id=op.correlation_id)
            )
        else:
            verdicts[number] = await taken(op, row.order_id, instruction_id, instruction.ref)
            ledger.take_back([instruction])
    await ledger.keep(op)
    await record_many(op, entries)
    return verdicts


def _result(number: int, line: Line | StrongroomError, refusal: StrongroomError | None) -> LineResult:
    order_ref = instruction_ref = ""
    if isinstance(line, NewOrder):
        order_ref = line.ref
    elif isinstance(line, InstructionLine):
        order_ref, instruction_ref = line.order_ref, line.instruction.ref
    if refusal is None:
        return LineResult(number, "ACCEPTED", order_ref, instruction_ref)
    errors = [
        {
            "errorCode": failure.code,
            "message": failure.message,
            "messageTemplate": failure.template,
            "metadata": dict(failure.values),
        }
        for failure in refusal.failures
    ]
    return LineResult(number, "REFUSED", order_ref, instruction_ref, errors)


def _job(op: Operation, row: Sequence[Any]) -> Job:
    job_id, status, sealed, lines_done, accepted, refused, created_at, updated_at = row
    return Job(
        job_id=job_id,
        status=status,
        digest=op.cipher.open("bulk_jobs", "sealed", job_id.bytes, sealed),
        lines_done=lines_done,
        accepted=accepted,
        refused=refused,
        created_at=created_at,
        updated_at=updated_at,
    )

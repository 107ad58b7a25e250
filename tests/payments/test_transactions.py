"""The state table, all of it, and what outcomes do to what is stored."""

from __future__ import annotations

import asyncio
from itertools import product
from uuid import UUID

import psycopg
import pytest

from strongroom.kernel.actors import system
from strongroom.kernel.errors import NotFound
from strongroom.kernel.ids import new_uuid
from strongroom.payments.instructions import get_instruction
from strongroom.payments.payment_files import LEASE
from strongroom.payments.transactions import apply_outcome, apply_outcomes, contradicts, step
from strongroom.rails.contract import Outcome, OutcomeKind
from tests.fixtures.platform import Platform
from tests.payments.paying import Payer

STATUSES = ("INTENDED", "PROCESSING", "UNCONFIRMED", "SUCCESS", "FAILED")
SETTLED, PENDING, REFUSED, UNCONFIRMED, NEVER_RECEIVED, NOT_SENT, RETURNED = OutcomeKind
TOLD: dict[str, Outcome | None] = {
    "INTENDED": None,
    "PROCESSING": Outcome(kind=PENDING, reference="r"),
    "UNCONFIRMED": Outcome(kind=UNCONFIRMED, reference="r"),
    "SUCCESS": Outcome(kind=SETTLED, reference="r"),
    "FAILED": Outcome(kind=REFUSED, reference="r", reason="AM04"),
}
"""What brings a fresh attempt into a state."""
INSTRUCTION = {
    "INTENDED": "PROCESSING",
    "PROCESSING": "PROCESSING",
    "UNCONFIRMED": "UNCONFIRMED",
    "SUCCESS": "COMPLETED",
    "FAILED": "FAILED",
}
"""And its instruction."""


def expected(status: str, kind: OutcomeKind) -> tuple[str, str] | None:
    """The table as a person would write it down: the next states of transaction and instruction; None: none."""
    if status == "FAILED":
        return None
    if status == "SUCCESS":
        return ("FAILED", "FAILED") if kind is RETURNED else None
    rows = {
        SETTLED: ("SUCCESS", "COMPLETED"),
        REFUSED: ("FAILED", "FAILED"),
        RETURNED: ("FAILED", "FAILED"),
        PENDING: None if status == "PROCESSING" else ("PROCESSING", "PROCESSING"),
        NEVER_RECEIVED: None if status == "PROCESSING" else ("FAILED", "READY"),
        NOT_SENT: None if status == "PROCESSING" else ("FAILED", "READY"),
        UNCONFIRMED: ("UNCONFIRMED", "UNCONFIRMED") if status == "INTENDED" else None,
    }
    return rows[kind]


CONTRADICTIONS = {
    ("PROCESSING", NEVER_RECEIVED),
    ("PROCESSING", NOT_SENT),
    ("SUCCESS", REFUSED),
    ("SUCCESS", NEVER_RECEIVED),
    ("SUCCESS", NOT_SENT),
    ("FAILED", SETTLED),
}
ALL = list(product(STATUSES, OutcomeKind))


@pytest.mark.parametrize(("status", "kind"), ALL)
def test_the_table(status: str, kind: OutcomeKind) -> None:
    taken = step(status, kind)
    assert (taken and (taken.transaction, taken.instruction)) == expected(status, kind)
    assert contradicts(status, kind) is ((status, kind) in CONTRADICTIONS)
    assert not (taken and contradicts(status, kind))


def test_the_table_never_goes_back_and_never_pays_for_nothing() -> None:
    """What holds whatever the table says in its single cells."""
    for status, kind in ALL:
        taken = step(status, kind)
        if taken is None:
            continue
        assert taken.transaction != status
        assert taken.transaction != "INTENDED"
        assert (taken.transaction, taken.instruction) in {
            ("PROCESSING", "PROCESSING"),
            ("UNCONFIRMED", "UNCONFIRMED"),
            ("SUCCESS", "COMPLETED"),
            ("FAILED", "FAILED"),
            ("FAILED", "READY"),
        }
        if taken.instruction == "READY":  # it will be paid again, so nothing may have moved
            assert kind in {NEVER_RECEIVED, NOT_SENT}
            assert status in {"INTENDED", "UNCONFIRMED"}
        again = step(taken.transaction, kind)
        assert again is None, "the same word twice says nothing new"


async def attempts_of(payer: Payer, count: int) -> list[tuple[str, UUID]]:
    """Instructions with an attempt that has been intended and not acted upon."""
    named = await payer.instruct(*["Claim"] * count)
    made = [(name, new_uuid()) for name in named]
    async with payer.operation() as op:
        for name, transaction_id in made:
            await op.run(
                """
                with moved as (
                    update instructions set status = 'PROCESSING' where instruction_id = %s::uuid
                    returning tenant_id, order_id, instruction_id)
                insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status,
                                          claimed_until, sealed, created_at, updated_at)
                select tenant_id, %s, order_id, instruction_id, 'simulator', 'INTENDED', %s, %s, %s, %s from moved
                """,
                payer.id_of(op, name),
                transaction_id,
                op.now + LEASE,
                op.cipher.seal("transactions", "sealed", transaction_id.bytes, b"\x95\xa0\xa0\xa0\xa0\xa0"),
                op.now,
                op.now,
            )
    return made


async def test_every_cell_of_the_table_as_it_is_stored(payer: Payer) -> None:
    attempts = await attempts_of(payer, len(ALL))
    async with payer.operation() as op:
        first = [
            (transaction_id, said)
            for (_, transaction_id), (status, _) in zip(attempts, ALL, strict=True)
            if (said := TOLD[status]) is not None
        ]
        assert all(await apply_outcomes(op, first))
    async with payer.operation() as op:
        changed = await apply_outcomes(
            op,
            [
                (transaction_id, Outcome(kind=kind, reference="r"))
                for (_, transaction_id), (_, kind) in zip(attempts, ALL, strict=True)
            ],
        )
    contradictions = {subject for _, subject, _ in await payer.actions("transaction.contradiction")}
    for (name, transaction_id), cell, did in zip(attempts, ALL, changed, strict=True):
        after = expected(*cell) or (cell[0], INSTRUCTION[cell[0]])
        assert (await payer.attempts(name), await payer.status(name)) == ([after[0]], after[1]), cell
        assert did is (expected(*cell) is not None), cell
        assert (str(transaction_id) in contradictions) is (cell in CONTRADICTIONS), cell


async def test_outcomes_of_one_batch_count_one_after_the_other(payer: Payer) -> None:
    [(name, transaction_id)] = await attempts_of(payer, 1)
    words = [
        Outcome(kind=UNCONFIRMED, reference="r", reason="OUTBOUND_ANSWER_LATE"),
        Outcome(kind=PENDING, reference="r", provider_reference="P-1"),
        Outcome(kind=SETTLED, reference="r", detail="booked"),
        Outcome(kind=SETTLED, reference="r"),
        Outcome(kind=PENDING, reference="r"),
        Outcome(kind=REFUSED, reference="r", reason="AM04"),
        Outcome(kind=RETURNED, reference="r", reason="RETURNED AC04"),
        Outcome(kind=SETTLED, reference="r"),
    ]
    async with payer.operation() as op:
        changed = await apply_outcomes(op, [(transaction_id, word) for word in words])
    assert changed == [True, True, True, False, False, False, True, False]
    assert (await payer.attempts(name), await payer.status(name)) == (["FAILED"], "FAILED")
    assert await payer.reasons(name) == ["OUTBOUND_ANSWER_LATE", "", "", "RETURNED AC04"]
    assert [detail for _, _, detail in await payer.actions("transaction.")] == [
        *("UNCONFIRMED", "PROCESSING", "SUCCESS", "SUCCESS REFUSED", "FAILED", "FAILED SETTLED")
    ]
    async with payer.operation() as op:
        attempt = (await get_instruction(op, *name.split("/"))).attempt
    assert attempt is not None
    assert (attempt.said.provider_reference, attempt.said.reason) == ("P-1", "RETURNED AC04")


async def test_the_same_word_from_many_sides_at_once_counts_once(payer: Payer, platform: Platform) -> None:
    [(name, transaction_id)] = await attempts_of(payer, 1)

    async def tell(outcome: Outcome) -> bool:
        async with platform.app.operation(system("test"), tenant=payer.tenant) as op:
            return await apply_outcome(op, transaction_id, outcome)

    settled = Outcome(kind=SETTLED, reference="r")
    assert sum(await asyncio.gather(*(tell(settled) for _ in range(12)))) == 1
    assert await payer.reasons(name) == [""]


async def test_contradicting_words_at_once_leave_one_end_and_a_record_of_the_other(payer: Payer) -> None:
    [(name, transaction_id)] = await attempts_of(payer, 1)

    async def tell(kind: OutcomeKind) -> None:
        async with payer.operation() as op:
            await apply_outcome(op, transaction_id, Outcome(kind=kind, reference="r", reason="AM04"))

    await asyncio.gather(*(tell(kind) for kind in (SETTLED, REFUSED, SETTLED, REFUSED)))
    end = (await payer.attempts(name))[0]
    assert end in {"SUCCESS", "FAILED"}
    opposite = "REFUSED" if end == "SUCCESS" else "SETTLED"
    said = [detail for _, _, detail in await payer.actions("transaction.contradiction")]
    assert said == [f"{end} {opposite}"] * 2


async def test_a_reason_that_is_too_long_or_not_plain_stays_out_of_the_history(payer: Payer) -> None:
    [(long, first), (odd, second)] = await attempts_of(payer, 2)
    async with payer.operation() as op:
        await apply_outcome(op, first, Outcome(kind=REFUSED, reference="r", reason="x" * 41))
        await apply_outcome(op, second, Outcome(kind=REFUSED, reference="r", reason="ünklar"))
        said = [(await get_instruction(op, *name.split("/"))).attempt for name in (long, odd)]
    assert [await payer.reasons(name) for name in (long, odd)] == [["OTHER"], ["OTHER"]]
    assert [attempt and attempt.said.reason for attempt in said] == ["x" * 41, "ünklar"]  # sealed, and complete


async def test_an_outcome_of_nothing_we_know_is_refused_whole(payer: Payer) -> None:
    [(name, transaction_id)] = await attempts_of(payer, 1)
    settled = Outcome(kind=SETTLED, reference="r")
    with pytest.raises(NotFound, match="no such transaction"):
        async with payer.operation() as op:
            await apply_outcomes(op, [(transaction_id, settled), (new_uuid(), settled)])
    assert await payer.attempts(name) == ["INTENDED"]


async def test_the_database_keeps_a_second_live_attempt_out(payer: Payer) -> None:
    """The last lock, for whatever code may come."""
    [(name, _)] = await attempts_of(payer, 1)
    async with payer.operation() as op:
        again = """
            insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status, sealed,
                                      created_at, updated_at)
            select tenant_id, %s, order_id, instruction_id, 'simulator', %s, '', now(), now()
            from instructions where instruction_id = %s::uuid
        """
        await op.run(again, new_uuid(), "FAILED", payer.id_of(op, name))
        for status in ("INTENDED", "PROCESSING", "UNCONFIRMED", "SUCCESS"):
            with pytest.raises(psycopg.errors.UniqueViolation):
                async with op.connection.transaction():
                    await op.run(again, new_uuid(), status, payer.id_of(op, name))

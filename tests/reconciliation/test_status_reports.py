"""What a bank says of our files before it books anything."""

from __future__ import annotations

from uuid import UUID, uuid4

import pytest

from strongroom.assembly import App
from strongroom.kernel.errors import Conflict, Refused
from strongroom.reconciliation import Imported
from tests.fixtures.platform import Client
from tests.reconciliation.bank import BankWorld, Paid, entry, execution, statement, status_report

OPEN, DONE, FAILED = ("PROCESSING", "PROCESSING"), ("SUCCESS", "COMPLETED"), ("FAILED", "FAILED")


@pytest.fixture
async def sent(bank: BankWorld) -> list[Paid]:
    """Three payments in one file, in one batch."""
    return await bank.pay(("Ada Lovelace", 1_000), ("Ben Franklin", 2_000), ("Cy Twombly", 3_000))


def batch_of(paid: Paid) -> str:
    return f"{paid.file_id.hex}001"


def verdict(paid: Paid, status: str, reason: str = "") -> tuple[str, str, str, str]:
    return batch_of(paid), paid.reference, status, reason


async def answer(bank: BankWorld, sent: list[Paid], *statuses: tuple[str, str, str, str], **more: object) -> Imported:
    document = status_report(sent[0].file_id.hex, *statuses, **more)  # type: ignore[arg-type]  # passed through
    [imported] = await bank.take_in(document)
    return imported


async def states(bank: BankWorld, sent: list[Paid]) -> list[tuple[str, str]]:
    found = await bank.states()
    return [found[paid.reference] for paid in sent]


async def file_states(bank: BankWorld) -> list[str]:
    async with bank.operation() as op:
        return [row[0] for row in await op.rows("select status from payment_files where tenant_id = %s", bank.tenant)]


def codes(imported: Imported) -> list[tuple[str, dict[str, int | str]]]:
    return [(remark.code, remark.values) for remark in imported.content.remarks]


async def test_a_rejected_payment_fails_with_the_banks_reason(bank: BankWorld, sent: list[Paid]) -> None:
    imported = await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), verdict(sent[1], "ACCP"), group="PART")
    assert await states(bank, sent) == [FAILED, OPEN, OPEN]
    assert await bank.events(sent[0]) == [("PROCESSING", ""), ("FAILED", "AC04")]
    assert (imported.kind, imported.content.moved, imported.content.matched.count) == ("STATUS_REPORT", 1, 2)
    assert imported.content.about == sent[0].file_id.hex
    assert codes(imported) == []
    assert await file_states(bank) == ["ANSWERED"]
    assert await bank.actions("payment-file.answer") == [
        ("payment-file.answer", str(sent[0].file_id), "payments=2"),
    ]


@pytest.mark.parametrize("status", ["ACCP", "ACSP", "ACSC", "ACCC", "ACWC", "PDNG"])
async def test_acceptance_of_any_degree_leaves_the_end_to_the_statement(
    bank: BankWorld, sent: list[Paid], status: str
) -> None:
    imported = await answer(bank, sent, *(verdict(paid, status) for paid in sent))
    assert await states(bank, sent) == [OPEN] * 3
    assert (imported.content.moved, codes(imported)) == (0, [])


async def test_a_file_rejected_as_a_whole_fails_every_payment(bank: BankWorld, sent: list[Paid]) -> None:
    await answer(bank, sent, group="RJCT", reason="FF01")
    assert await states(bank, sent) == [FAILED] * 3
    assert await bank.events(sent[2]) == [("PROCESSING", ""), ("FAILED", "FF01")]


async def test_a_batch_rejected_as_a_whole_fails_its_payments(bank: BankWorld, sent: list[Paid]) -> None:
    await answer(bank, sent, batches=[(batch_of(sent[0]), "RJCT")])
    assert await states(bank, sent) == [FAILED] * 3
    assert await bank.events(sent[0]) == [("PROCESSING", ""), ("FAILED", "REJECTED")]


async def test_a_duplicate_says_nothing_about_the_first_delivery(bank: BankWorld, sent: list[Paid]) -> None:
    imported = await answer(bank, sent, group="RJCT", reason="DUPL")
    assert await states(bank, sent) == [OPEN] * 3
    assert codes(imported) == [("REJECTED_AS_DUPLICATES", {"count": 3})]


async def test_a_status_that_says_nothing_for_certain_changes_nothing(bank: BankWorld, sent: list[Paid]) -> None:
    imported = await answer(bank, sent, *(verdict(paid, "XXXX") for paid in sent))
    assert await states(bank, sent) == [OPEN] * 3
    assert codes(imported) == [("STATUS_NOT_RECOGNISED", {"count": 3, "status": "XXXX"})]


async def test_a_rejection_of_what_was_booked_is_recorded_and_changes_nothing(
    bank: BankWorld, sent: list[Paid]
) -> None:
    await bank.take_in(statement(*(execution(paid) for paid in sent)))
    imported = await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), group="PART")
    assert await states(bank, sent) == [DONE] * 3
    assert codes(imported) == [("CONTRADICTS_STATEMENT", {"count": 1})]
    assert [detail for _, _, detail in await bank.actions("transaction.contradiction")] == ["SUCCESS REFUSED"]


async def test_a_booking_of_what_was_rejected_is_a_break(bank: BankWorld, sent: list[Paid]) -> None:
    await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), group="PART")
    [booked] = await bank.take_in(statement(*(execution(paid) for paid in sent)))
    assert (booked.content.matched.count, booked.content.breaks.count) == (2, 1)
    assert await states(bank, sent) == [FAILED, DONE, DONE]
    assert await bank.actions("transaction.contradiction") == []


async def test_a_batch_is_booked_without_what_was_rejected(bank: BankWorld, sent: list[Paid]) -> None:
    await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), group="PART")
    await bank.take_in(statement(entry(5_000, batches=[("", batch_of(sent[0]))])))
    assert await states(bank, sent) == [FAILED, DONE, DONE]


async def test_payments_that_were_not_in_the_file_are_remarked_on(bank: BankWorld, sent: list[Paid]) -> None:
    stranger = (batch_of(sent[0]), uuid4().hex, "RJCT", "AC04")
    imported = await answer(bank, sent, verdict(sent[0], "ACCP"), stranger)
    assert codes(imported) == [("PAYMENTS_NOT_IN_FILE", {"count": 1})]


@pytest.mark.parametrize("message", ["4711", UUID(int=7).hex, "NOTPROVIDED"])
async def test_a_report_of_a_file_that_is_not_ours_is_refused(bank: BankWorld, message: str) -> None:
    with pytest.raises(Refused) as refused:
        await bank.take_in(status_report(message, group="RJCT"))
    assert refused.value.code == "REPORT_OF_UNKNOWN_FILE"
    assert await bank.stored() == (0, 0)


async def test_a_report_of_another_tenants_file_is_refused(
    bank: BankWorld, sent: list[Paid], app: App, account: Client
) -> None:
    other = await BankWorld.open(app, await account.new_tenant(), bank.files / "other")
    with pytest.raises(Refused) as refused:
        await other.take_in(status_report(sent[0].file_id.hex, group="RJCT"))
    assert refused.value.code == "REPORT_OF_UNKNOWN_FILE"
    assert await states(bank, sent) == [OPEN] * 3


async def test_a_report_is_taken_in_once(bank: BankWorld, sent: list[Paid]) -> None:
    first = await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), group="PART")
    again = await answer(bank, sent, verdict(sent[0], "RJCT", "AC04"), group="PART")
    assert (first.is_new, again.is_new, again.statement_id) == (True, False, first.statement_id)
    with pytest.raises(Conflict) as refused:
        await answer(bank, sent, verdict(sent[1], "RJCT", "AC04"), group="PART")
    assert refused.value.code == "STATEMENT_DIFFERS"
    later = await answer(bank, sent, verdict(sent[1], "RJCT", "AM04"), group="PART", name="R-2")
    assert later.is_new
    assert await states(bank, sent) == [FAILED, FAILED, OPEN]

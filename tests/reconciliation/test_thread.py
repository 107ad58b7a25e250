"""The whole way: instructions, a payment file, the bank's answers through the inbox, the end states and the figures."""

from __future__ import annotations

from strongroom.reconciliation import list_breaks
from strongroom.reconciliation.contents import Sum
from tests.reconciliation.bank import READER, BankWorld


async def test_a_file_goes_out_and_its_answers_come_home(bank: BankWorld) -> None:
    plain, refused, returned, silent = await bank.pay(
        ("Ada Lovelace", 10_001), ("Ben RJCT-AC04", 20_002), ("Cy RTRN-AC06", 30_003), ("Dee SILENT", 40_004)
    )
    bank.answer(unrelated_incoming=True)

    results = await bank.sweep()

    assert [result.failures for result in results] == [(), ()]
    assert [part.kind for result in results for part in result.imported] == ["STATUS_REPORT", "STATEMENT"]
    states = await bank.states()
    assert states[plain.reference] == ("SUCCESS", "COMPLETED")
    assert states[refused.reference] == ("FAILED", "FAILED")
    assert states[returned.reference] == ("FAILED", "FAILED")
    assert states[silent.reference] == ("PROCESSING", "PROCESSING")
    assert await bank.events(refused) == [("PROCESSING", ""), ("FAILED", "AC04")]
    assert await bank.events(returned) == [("PROCESSING", ""), ("COMPLETED", ""), ("FAILED", "RETURNED-AC06")]
    summary = await bank.summary()
    assert summary.matched == Sum(3, 10_001 + 30_003, 30_003)
    assert summary.open_breaks == Sum(1, 0, 123_45)
    async with bank.operation(READER) as op:
        [incoming] = await list_breaks(op)
    assert (incoming.content.minor, incoming.content.reason) == (123_45, "UNKNOWN_REFERENCE")
    assert sorted(path.parent.name for path in bank.inbox.rglob("*.xml")) == ["done", "done"]

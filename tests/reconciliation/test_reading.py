"""How many reports are in hand at once."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import pytest

from strongroom.kernel.errors import TooOften
from strongroom.kernel.ids import TenantId, new_uuid
from strongroom.reconciliation import ReportReader
from strongroom.reconciliation.reading import COME_AGAIN_AFTER_S, MAX_AT_ONCE, MAX_AT_ONCE_BY_TENANT
from tests.reconciliation.bank import entry, statement


def tenants(count: int) -> list[TenantId]:
    return [TenantId(new_uuid()) for _ in range(count)]


def test_one_tenant_does_not_keep_the_others_out() -> None:
    reader = ReportReader()
    greedy, other = tenants(2)
    with ExitStack() as places:
        for _ in range(MAX_AT_ONCE_BY_TENANT):
            places.enter_context(reader.place(greedy))
        with pytest.raises(TooOften) as caught, reader.place(greedy):
            pass
        assert (caught.value.code, caught.value.retry_after_s) == ("REPORTS_AT_ONCE", COME_AGAIN_AFTER_S)
        with reader.place(other):
            pass
    with reader.place(greedy):
        pass


def test_a_process_has_only_so_many_in_hand() -> None:
    reader = ReportReader()
    with ExitStack() as places:
        for tenant in tenants(MAX_AT_ONCE):
            places.enter_context(reader.place(tenant))
        with pytest.raises(TooOften), reader.place(tenants(1)[0]):
            pass
    with reader.place(tenants(1)[0]):
        pass


def test_a_place_is_given_back_when_reading_fails() -> None:
    reader = ReportReader()
    [tenant] = tenants(1)
    for _ in range(MAX_AT_ONCE_BY_TENANT + 1):
        with pytest.raises(ValueError, match="broken"), reader.place(tenant):
            raise ValueError("broken")


async def test_reports_are_read_one_after_another() -> None:
    reader = ReportReader()
    documents = [statement(entry(number)) for number in range(1, 4)]
    reports = await asyncio.gather(*(reader.read(document) for document in documents))
    assert [report.statements[0].entries[0].money.minor for report in reports] == [1, 2, 3]

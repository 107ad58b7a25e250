"""The order that every row creates: one instruction, paying 200.00 EUR out to one of a thousand customers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

CREATE_PATH = "/v1/order-management"
BULK_PATH = "/v1/order-management/bulk"
CUSTOMERS = 1_000

ORDER_MARK = "@order@"
CUSTOMER_MARK = "@customer@"


def template() -> str:
    """The order as JSON, with marks where its reference and its customer go; `load.lua` fills them in likewise."""
    settled_by = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    instruction = {
        "instructionRef": f"{ORDER_MARK}-1",
        "customerRef": CUSTOMER_MARK,
        "direction": "CREDIT",
        "amount": "200.00",
        "currency": "EUR",
        "country": "DE",
        "settledByDate": settled_by,
        "metadata": {"claimNumber": "CL-2026-004711", "policyNumber": "HH-88-120-553"},
    }
    order = {
        "orderRef": ORDER_MARK,
        "instructions": [instruction],
        "metadata": {"branch": "Hamburg", "lineOfBusiness": "Household"},
    }
    return json.dumps(order, separators=(",", ":"))


def order_ref(run: str, number: int) -> str:
    """The reference of a run's order; runs are told apart by their name, orders by their number from 1."""
    return f"{run}-{number}"


def customer_ref(number: int) -> str:
    """The customer that the order with this number belongs to."""
    return f"customer-{number % CUSTOMERS}"


def lines(run: str, numbers: range) -> Iterator[bytes]:
    """The run's orders as NDJSON, one line each."""
    text = template() + "\n"
    for number in numbers:
        filled = text.replace(ORDER_MARK, order_ref(run, number)).replace(CUSTOMER_MARK, customer_ref(number))
        yield filled.encode()

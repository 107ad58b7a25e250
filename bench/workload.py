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


def template(per_order: int = 1) -> str:
    """The order as JSON, with marks where its reference and its customers go; `load.lua` fills them in likewise.

    With more than one instruction, the marks of their customers carry their number.
    """
    settled_by = (datetime.now(UTC) + timedelta(days=30)).date().isoformat()
    instructions = [
        {
            "instructionRef": f"{ORDER_MARK}-{number}",
            "customerRef": CUSTOMER_MARK if per_order == 1 else f"{CUSTOMER_MARK}{number}@",
            "direction": "CREDIT",
            "amount": "200.00",
            "currency": "EUR",
            "country": "DE",
            "settledByDate": settled_by,
            "metadata": {"claimNumber": "CL-2026-004711", "policyNumber": "HH-88-120-553"},
        }
        for number in range(1, per_order + 1)
    ]
    order = {
        "orderRef": ORDER_MARK,
        "instructions": instructions,
        "metadata": {"branch": "Hamburg", "lineOfBusiness": "Household"},
    }
    return json.dumps(order, separators=(",", ":"))


def order_ref(run: str, number: int) -> str:
    """The reference of a run's order; runs are told apart by their name, orders by their number from 1."""
    return f"{run}-{number}"


def customer_ref(number: int) -> str:
    """The customer that the order with this number belongs to."""
    return f"customer-{number % CUSTOMERS}"


def lines(run: str, numbers: range, per_order: int = 1) -> Iterator[bytes]:
    """The run's orders as NDJSON, one line each."""
    text = template(per_order) + "\n"
    for number in numbers:
        filled = text.replace(ORDER_MARK, order_ref(run, number))
        for position in range(1, per_order + 1):
            mark = CUSTOMER_MARK if per_order == 1 else f"{CUSTOMER_MARK}{position}@"
            filled = filled.replace(mark, customer_ref(number * per_order + position))
        yield filled.encode()

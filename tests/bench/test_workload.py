"""The order that is measured."""

import json
import re

from bench import workload

REF = re.compile(r"[A-Za-z0-9\-_.]{1,50}")


def test_every_line_is_an_order_of_its_own() -> None:
    orders = [json.loads(line) for line in workload.lines("many", range(1, 1_201))]

    assert len({order["orderRef"] for order in orders}) == 1_200
    assert len({order["instructions"][0]["customerRef"] for order in orders}) == workload.CUSTOMERS


def test_the_order_is_what_the_goals_speak_of() -> None:
    line = next(workload.lines("few", range(999_999_999, 1_000_000_000)))
    order = json.loads(line)
    (instruction,) = order["instructions"]

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert order["orderRef"] == workload.order_ref("few", 999_999_999)
    assert all(
        REF.fullmatch(ref) for ref in (order["orderRef"], instruction["instructionRef"], instruction["customerRef"])
    )
    assert (instruction["direction"], instruction["amount"], instruction["currency"]) == ("CREDIT", "200.00", "EUR")
    assert len(order["metadata"]) == len(instruction["metadata"]) == 2

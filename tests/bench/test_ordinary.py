"""The row to compare with does what it claims: it authenticates, checks, and stores an order before it answers."""

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench import floor, workload
from bench.target import Target, start_ordinary


@pytest.fixture(scope="module")
def ordinary(passable: Path) -> Iterator[Target]:
    with floor.server(passable / "ordinary") as database, start_ordinary(database, passable) as target:
        yield target


def post(target: Target, body: bytes, headers: Mapping[str, str]) -> int:
    with target.connection() as connection:
        connection.request("POST", workload.CREATE_PATH, body, {"Content-Type": "application/json", **headers})
        return connection.getresponse().status


def order(number: int, run: str = "test") -> bytes:
    return next(workload.lines(run, range(number, number + 1)))


def test_an_order_is_stored_with_its_instruction(ordinary: Target) -> None:
    headers = ordinary.authorise()

    assert post(ordinary, order(1), headers) == http.HTTPStatus.ACCEPTED

    with ordinary.connection() as connection:
        connection.request("GET", f"{workload.CREATE_PATH}/{workload.order_ref('test', 1)}", headers=dict(headers))
        answer = connection.getresponse()
        stored = json.load(answer)
    assert answer.status == http.HTTPStatus.OK
    assert stored == {"orderRef": "test-1", "instructions": ["test-1-1"]}


def test_a_reference_is_taken_once(ordinary: Target) -> None:
    headers = ordinary.authorise()

    assert post(ordinary, order(2), headers) == http.HTTPStatus.ACCEPTED
    assert post(ordinary, order(2), headers) == http.HTTPStatus.BAD_REQUEST


def test_a_bad_order_is_refused(ordinary: Target) -> None:
    bad = order(3).replace(b'"200.00"', b'"-1"')

    assert post(ordinary, bad, ordinary.authorise()) == http.HTTPStatus.UNPROCESSABLE_ENTITY


def test_a_forged_token_and_another_tenant_are_refused(ordinary: Target) -> None:
    headers = dict(ordinary.authorise())
    head, _, signature = headers["Authorization"].rpartition(".")
    forged = {**headers, "Authorization": f"{head}.{signature[::-1]}"}
    elsewhere = {**headers, "x-tenant-id": "00000000-0000-4000-8000-000000000000"}

    assert post(ordinary, order(4), forged) == http.HTTPStatus.UNAUTHORIZED
    assert post(ordinary, order(4), elsewhere) == http.HTTPStatus.FORBIDDEN

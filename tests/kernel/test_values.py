"""Ids, clocks, secrets, errors."""

from __future__ import annotations

import pickle
import time
from datetime import UTC, datetime, timedelta

import pytest

from strongroom.kernel.clock import ManualClock, SystemClock, epoch_ms, today
from strongroom.kernel.errors import Failure, Invalid, StrongroomError
from strongroom.kernel.ids import new_scheme_id, new_uuid, new_uuid_text, parse_uuid
from strongroom.kernel.secret import Secret


def test_uuids_are_of_version_7_and_carry_the_time() -> None:
    before = time.time_ns() // 1_000_000
    made = new_uuid()
    after = time.time_ns() // 1_000_000
    assert made.version == 7
    assert before <= made.int >> 80 <= after
    assert len({new_uuid() for _ in range(10_000)}) == 10_000


def test_the_text_form_is_the_usual_one() -> None:
    text = new_uuid_text()
    assert str(parse_uuid(text)) == text


@pytest.mark.parametrize(
    "wrong", [None, 5, "", "x" * 36, "{01a202f8-2363-77bd-9f43-3b6066f75472}", "01a202f8236377bd9f433b6066f75472"]
)
def test_only_the_usual_form_is_a_uuid(wrong: object) -> None:
    assert parse_uuid(wrong) is None


def test_scheme_ids_are_32_upper_case_hexadecimal_digits() -> None:
    scheme_id = new_scheme_id()
    assert len(scheme_id) == 32
    assert set(scheme_id) <= set("0123456789ABCDEF")


def test_secrets_dont_print_and_dont_pickle() -> None:
    secret = Secret("hunter2")
    assert "hunter2" not in f"{secret} {secret!r} {secret!s} {[secret]}"
    assert secret.reveal() == "hunter2"
    with pytest.raises(TypeError):
        pickle.dumps(secret)


def test_a_manual_clock_moves_only_when_told() -> None:
    clock = ManualClock(datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC))
    assert today(clock).isoformat() == "2026-02-28"
    clock.advance(timedelta(seconds=1))
    assert today(clock).isoformat() == "2026-03-01"
    assert epoch_ms(clock.now()) == 1_772_323_200_000
    assert SystemClock().now().tzinfo is UTC


def test_an_error_lists_its_failures_and_says_the_first_ones_code() -> None:
    error = Invalid(Failure("A", "a {n}", {"n": 1}), Failure("B", "b {braces stay}"))
    assert error.code == "A"
    assert str(error) == "a 1; b {braces stay}"
    with pytest.raises(TypeError):
        StrongroomError()

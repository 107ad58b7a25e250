"""The scan finds a card number in every form, wherever the pieces are cut, and takes nothing else for one."""

from __future__ import annotations

import base64
import os
import secrets
import subprocess
import sys
from pathlib import Path

import pytest

from strongroom.trust.card_scan import CardSearch, find_numbers, log_files_of, memory_of
from strongroom.trust.searching import PIECE
from tests.vault.cards.numbers import ALL, AMEX, VISA, VISA_13


def found_in(content: bytes) -> list[str]:
    return [found.masked for found in find_numbers(content)]


@pytest.mark.parametrize("number", ALL)
@pytest.mark.parametrize("around", [(b"", b""), (b'{"pan":"', b'"}'), (b"card=", b"&x=1"), (b"\x00\xff", b"\x00\x01")])
def test_every_scheme_s_numbers_are_found(number: str, around: tuple[bytes, bytes]) -> None:
    assert len(found_in(around[0] + number.encode() + around[1])) == 1


@pytest.mark.parametrize(
    "written",
    [
        b"4111 1111 1111 1111",
        b"4111-1111-1111-1111",
        b"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
        b"3782 822463 10005",
        f"card {VISA}.".encode("utf-16-le"),
        f"card {VISA}.".encode("utf-16-be"),
        VISA.encode().hex().encode(),
        f"x{VISA}".encode().hex().encode(),
        base64.b64encode(VISA.encode()),
        base64.b64encode(f"a {VISA} z".encode()),
        base64.b64encode(f"ab {AMEX},".encode()),
        base64.b64encode(f"abc {VISA}".encode()),
        base64.urlsafe_b64encode(f"?{VISA}>".encode()),
    ],
)
def test_numbers_are_found_in_every_form(written: bytes) -> None:
    assert len(found_in(b"before: " + written + b"\nafter")) == 1


@pytest.mark.parametrize(
    "harmless",
    [
        b"4111111111111112",
        b"9999999999999995",
        b"0.4111111111111111",
        b"-6780295414720652096",
        b"a4111111111111111",
        b"41111111111111110000000",
        b"1763800000000",
        b"4223210000000006619",
        b"6759649826438453000",
        b"01a203d9-3fc7-7827-ac4e-c4bc6c473e03",
        b"41111111****1111",
        b"card_bcdfghjkmnpqrstvwxyzbcdfghjkmn",
    ],
)
def test_what_is_no_number_is_not_taken_for_one(harmless: bytes) -> None:
    assert found_in(b" " + harmless + b" ") == []


def test_chance_looks_like_a_number_hardly_ever() -> None:
    assert found_in(os.urandom(4 << 20)) == []
    assert found_in(base64.b64encode(os.urandom(1 << 20))) == []
    assert found_in(os.urandom(1 << 20).hex().encode()) == []


@pytest.mark.parametrize("before", [0, 1, PIECE - 16, PIECE - 15, PIECE - 8, PIECE - 1, PIECE, PIECE + 1])
@pytest.mark.parametrize("after", [b"", b"\n", b"\0" * PIECE])
def test_nothing_hides_on_a_seam_or_at_an_end(before: int, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / secrets.token_hex(4)
    path.write_bytes(b"." * (before - 1) + b" " * (before > 0) + VISA.encode() + after)
    search = CardSearch("file", [])
    search.file(path, "here")
    assert search.found == ["card number 41111111****1111, clear, in here"]


def test_a_number_cut_by_a_seam_is_no_shorter_number(tmp_path: Path) -> None:
    # Its first 13 digits, and its last 13, would each be a good number.
    longer = f"{VISA_13}00{VISA_13}"
    path = tmp_path / "cut"
    for shift in range(30):
        path.write_bytes(b" " * (PIECE - shift) + longer.encode() + b" ")
        search = CardSearch("file", [])
        search.file(path, "here")
        assert search.found == []


def test_memory_of_a_process_is_searched() -> None:
    program = "import sys; kept = sys.stdin.readline().strip(); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(f"{VISA}\n".encode())
        holder.stdin.flush()
        assert holder.stdout.readline() == b"ready\n"
        search = CardSearch("memory", [], [b"kept"])
        search.pieces(memory_of(holder.pid), "process")
        holder.stdin.close()
    assert search.found == ["card number 41111111****1111, clear, in process"]
    assert search.saw_everything


def test_log_files_are_found_by_who_writes_them(tmp_path: Path) -> None:
    log = tmp_path / "own.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(["sleep", "60"], stdout=output, stderr=subprocess.DEVNULL) as process,
    ):
        assert log_files_of([process.pid]) == {log.resolve(): "log own.log"}
        process.kill()

"""Files that are cut off, altered or made to do harm: always one of our own errors, never anything else."""

from __future__ import annotations

import re
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from strongroom.kernel.errors import StrongroomError, TooLarge
from strongroom.rails.formats import _xml, camt, pain001, pain002
from tests.rails.formats.samples import file_of, payment
from tests.rails.formats.statements import detail, entry, notification, usual
from tests.rails.formats.test_pain002 import batch, reason, report, status, transaction

Reader = Callable[[bytes], object]

READERS: dict[str, tuple[Reader, bytes]] = {
    "pain.001": (pain001.read, pain001.write(file_of(payment(1), payment(2)))),
    "pain.002": (
        pain002.read,
        report(status("PART"), batch("B-1", "PART", transaction("E-1", "RJCT", reason("AC04"))), version=10),
    ),
    "camt.053": (camt.read_statements, usual(8)),
    "camt.054": (camt.read_notifications, notification(8, entry(8, "1.00", detail(8, "E-1", "1.00")))),
}
readers = pytest.mark.parametrize(("read", "document"), READERS.values(), ids=READERS.keys())


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A few cuts, overwritten bytes, repeated pieces and swapped texts."""
    edits = draw(
        st.lists(
            st.tuples(
                st.sampled_from(["cut", "end", "write", "repeat", "text"]),
                st.floats(0, 1, exclude_max=True),
                st.integers(1, 300),
                st.binary(min_size=1, max_size=8)
                | st.sampled_from([b"<", b">", b"&", b"</", b"9" * 400, b"-", b"\xff"]),
            ),
            min_size=1,
            max_size=4,
        )
    )

    def apply(document: bytes) -> bytes:
        for kind, where, length, piece in edits:
            at = int(where * max(len(document), 1))
            match kind:
                case "cut":
                    document = document[:at] + document[at + length :]
                case "end":
                    document = document[:at]
                case "write":
                    document = document[:at] + piece + document[at + len(piece) :]
                case "repeat":
                    document = document[: at + length] + document[at:]
                case "text":
                    start = document.find(b">", at) + 1
                    end = document.find(b"<", start)
                    document = document[:start] + piece + document[end:] if 0 < start <= end else document
        return document

    return apply


@readers
@settings(max_examples=100)
@given(mutate=mutations())
def test_altered_files_never_raise_anything_else(
    read: Reader, document: bytes, mutate: Callable[[bytes], bytes]
) -> None:
    try_reading(read, mutate(document))


@pytest.mark.soak
@readers
@settings(max_examples=5_000)
@given(mutate=mutations())
def test_thousands_of_altered_files_never_raise_anything_else(
    read: Reader, document: bytes, mutate: Callable[[bytes], bytes]
) -> None:
    try_reading(read, mutate(document))


def try_reading(read: Reader, document: bytes) -> None:
    """It is read, or refused with a code and a sentence."""
    try:
        assert read(document) is not None
    except StrongroomError as error:
        assert error.code.isupper()
        assert str(error)


@readers
@given(noise=st.binary(max_size=200))
def test_noise_never_raises_anything_else(read: Reader, document: bytes, noise: bytes) -> None:
    with pytest.raises(StrongroomError):
        read(noise)


@readers
def test_the_untouched_file_is_read(read: Reader, document: bytes) -> None:
    assert read(document)


@readers
def test_documents_with_a_document_type_are_refused(read: Reader, document: bytes, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("swordfish")
    body = document.split(b"?>", 1)[-1]
    declarations = [
        b"<!DOCTYPE Document>",
        f'<!DOCTYPE Document [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'.encode(),
        b'<!DOCTYPE Document SYSTEM "http://localhost:1/x.dtd">',
    ]
    for declaration in declarations:
        with pytest.raises(StrongroomError) as caught:
            read(declaration + body.replace(b"<MsgId>", b"<MsgId>&x;", 1))
        assert caught.value.code.endswith("_MALFORMED")
        assert "swordfish" not in str(caught.value)
        for encoding in ("utf-16", "cp037"):
            hidden = f'<?xml version="1.0" encoding="{encoding}"?>' + (declaration + body).decode()
            with pytest.raises(StrongroomError):
                read(hidden.encode(encoding))


@readers
def test_exploding_and_deep_documents_end_quickly(read: Reader, document: bytes) -> None:
    laughs = b"".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha" * 50}">'.encode() for n in range(10))
    name = document[document.index(b"<Document") :].split(b">")[0]
    bomb = b"<!DOCTYPE Document [" + laughs + b"]>" + name + b' a="&l9;">&l9;</Document>'
    deep = name + b">" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Document>"
    began = time.process_time()
    for harmful, word in ((bomb, "DOCTYPE"), (deep, "deeper than")):
        with pytest.raises(StrongroomError, match=word):
            read(harmful)
    assert time.process_time() - began < 5


def test_an_amount_is_read_whole_or_not_at_all() -> None:
    """What stands before an element inside would be another amount; a comment is nothing."""
    commented = notification(8, entry(8, "1<!-- -->000.00", detail(8, "E-1", "1000.00")))
    assert camt.read_notifications(commented)[0].entries[0].money.minor == 1_000_00
    with pytest.raises(StrongroomError) as caught:
        camt.read_notifications(notification(8, entry(8, "1<x/>000.00", detail(8, "E-1", "1.00"))))
    assert caught.value.code == "NOTIFICATION_MALFORMED"


def inside(document: bytes, harm: bytes) -> bytes:
    """The document with something more at the end of its body."""
    return re.sub(rb"(</[A-Za-z0-9]+>\s*</Document>)", lambda found: harm + found[1], document)


@readers
@pytest.mark.parametrize(
    "harm",
    [
        b"<X/>" * 110_000,
        b"<X " + b" ".join(b"a%d=''" % n for n in range(110_000)) + b"/>",
        b"<X>" + b"x" * 110_000 + b"</X>",
        b"<X a='" + b"x" * 1_500_000 + b"'/>",
        b"<!--" + b"x" * 1_500_000 + b"-->",
        b"".join(b"<X%d/>" % n for n in range(110_000)),
    ],
    ids=["elements", "attributes", "a text", "an attribute", "a comment", "names"],
)
def test_what_would_take_much_is_refused(read: Reader, document: bytes, harm: bytes) -> None:
    with pytest.raises(TooLarge) as caught:
        read(inside(document, harm))
    assert caught.value.code.endswith("_TOO_LARGE")
    assert caught.value.failures[0].values["limit"] in {_xml.MAX_KEPT, _xml.MAX_TEXT, _xml.MAX_TAG_BYTES}


def test_a_file_has_only_so_many_entries_and_transactions(monkeypatch: pytest.MonkeyPatch) -> None:
    details = [detail(8, f"E-{number}", "1.00") for number in range(8)]
    document = notification(8, *(entry(8, "2.00", *details[at : at + 2]) for at in range(0, 8, 2)))
    monkeypatch.setattr(_xml, "MAX_PIECES", 12)
    assert len(camt.read_notifications(document)[0].entries) == 4
    monkeypatch.setattr(_xml, "MAX_PIECES", 11)
    with pytest.raises(TooLarge, match="more than 11 entries and transactions"):
        camt.read_notifications(document)


def test_blanks_between_what_is_handed_over_are_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    details = [detail(8, f"E-{number}", "1.00").replace("<TxDtls>", "\n      <TxDtls>") for number in range(40)]
    monkeypatch.setattr(_xml, "MAX_TEXT", 60)
    [found] = camt.read_notifications(notification(8, entry(8, "40.00", *details)))[0].entries
    assert len(found.details) == 40


def test_a_batch_that_a_status_report_speaks_of_often_is_put_together_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of times, as thousands of batches do: what is kept of a file is not what stands around it."""
    monkeypatch.setattr(_xml, "MAX_KEPT", 40)
    parts = [batch("B-1", "PART", transaction(f"E-{number}", "RJCT", reason("AC04"))) for number in range(200)]
    [found] = pain002.read(report("PART", "".join(parts), version=10)).batches
    assert [one.end_to_end_id for one in found.transactions] == [f"E-{number}" for number in range(200)]


def test_a_long_report_takes_little_more_than_what_it_says() -> None:
    """A tree of it would take twenty times its size."""
    document = notification(8, *(entry(8, "1.00", detail(8, f"E-{number}", "1.00")) for number in range(1_000)))
    tracemalloc.start()
    try:
        entries = camt.read_notifications(document)[0].entries
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(entries) == 1_000
    assert peak < 4 * len(document)

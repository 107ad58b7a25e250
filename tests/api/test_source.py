"""Where a request comes from, with and without proxies before us."""

from __future__ import annotations

import pytest

from strongroom.api.source import MAX_HOPS, SourceReader

PROXY, INNER, CLIENT, LIAR = "10.0.0.1", "10.0.0.2", "198.51.100.7", "203.0.113.5"


def read(peer: str, *forwarded: str, trusted: tuple[str, ...] = ("10.0.0.0/8",)) -> str:
    headers = [(b"x-forwarded-for", each.encode()) for each in forwarded]
    return str(SourceReader(trusted).read((peer, 4711), [(b"host", b"x"), *headers]))


def test_without_trusted_proxies_the_header_means_nothing() -> None:
    assert read(CLIENT, LIAR, trusted=()) == CLIENT
    assert read(PROXY, LIAR, trusted=()) == PROXY


def test_who_is_no_proxy_of_ours_forwards_nothing() -> None:
    assert read(CLIENT, LIAR) == CLIENT


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([CLIENT], CLIENT),
        ([f"{LIAR}, {CLIENT}"], CLIENT),
        ([LIAR, CLIENT], CLIENT),
        ([f"{CLIENT}, {INNER}"], CLIENT),
        ([f"{LIAR}, {CLIENT}, {INNER}"], CLIENT),
        ([INNER], INNER),
        ([], PROXY),
        ([""], PROXY),
        ([f"{CLIENT}:50123"], CLIENT),
        (["[2001:db8::7]:443"], "2001:db8::7"),
        (["2001:db8::7"], "2001:db8::7"),
        ([f"::ffff:{CLIENT}"], CLIENT),
        (["unknown"], "::"),
        ([f"{CLIENT}, nonsense, {INNER}"], "::"),
        ([f"{CLIENT},,"], CLIENT),
        ([", ".join([CLIENT, *[INNER] * MAX_HOPS])], INNER),
    ],
)
def test_behind_a_proxy_it_is_the_last_that_is_none_of_ours(forwarded: list[str], expected: str) -> None:
    assert read(PROXY, *forwarded) == expected


def test_a_peer_without_an_address_comes_from_nowhere() -> None:
    assert str(SourceReader(()).read(None, [])) == "::"
    assert str(SourceReader(()).read(("testclient", 1), [])) == "::"

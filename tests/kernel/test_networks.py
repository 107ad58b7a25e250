"""Ranges of addresses."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strongroom.kernel.networks import AddressRange, Networks, parse_address, parse_network, parse_range


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", None),
        ("192.0.2.01", None),
        ("192.0.2", None),
        ("192.0.2.256", None),
        (" 192.0.2.1", None),
        ("", None),
    ],
)
def test_addresses(text: str, expected: str | None) -> None:
    found = parse_address(text)
    assert (None if found is None else str(found)) == expected


@pytest.mark.parametrize("text", ["192.0.2.0", "192.0.2.1/24", "192.0.2.0/33", "fe80::%1/64", "2001:db8::1/32", "x/1"])
def test_what_is_no_network(text: str) -> None:
    assert parse_network(text) is None


def test_networks_and_single_addresses_as_operators_write_them() -> None:
    assert str(parse_range("192.0.2.0/30")) == "192.0.2.0-192.0.2.3"
    assert str(parse_range("2001:db8::/127")) == "2001:db8::-2001:db8::1"
    assert str(parse_range("192.0.2.7")) == "192.0.2.7-192.0.2.7"
    with pytest.raises(ValueError, match="neither a network"):
        parse_range("office")


@pytest.mark.parametrize("text", ["192.0.2.2-192.0.2.1", "192.0.2.1-2001:db8::1", "192.0.2.1", "-", "a-b"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(ValueError):
        AddressRange.parse(text)


def test_both_ends_are_included_and_versions_kept_apart() -> None:
    networks = Networks.parse(["192.0.2.10-192.0.2.20", "::-::ff"])
    told = {text: ip_address(text) in networks for text in ("192.0.2.9", "192.0.2.10", "192.0.2.20", "192.0.2.21")}
    assert list(told.values()) == [False, True, True, False]
    assert ip_address("::ff") in networks
    assert ip_address("0.0.0.255") not in networks, "the same number, another version"
    assert ip_address("::c000:20a") not in networks


small = st.tuples(st.integers(0, 255), st.integers(0, 255)).map(sorted)


@given(ranges=st.lists(small, max_size=12), asked=st.integers(0, 255))
def test_an_address_is_in_a_set_of_ranges_if_it_is_in_one_of_them(ranges: list[list[int]], asked: int) -> None:
    networks = Networks(AddressRange(4, first, last) for first, last in ranges)
    assert (ip_address(f"0.0.0.{asked}") in networks) is any(first <= asked <= last for first, last in ranges)

"""Which addresses are dialled."""

from __future__ import annotations

import pytest

from strongroom.outbound import Destination, address_refusal


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "100.64.0.1",
        "0.0.0.1",
        "169.254.169.254",
        "192.0.2.7",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::10.0.0.1",
        "2002:0a00:0001::1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "4000::1",
    ],
)
def test_addresses_that_are_not_public_are_refused_even_where_loopback_is_allowed(address: str) -> None:
    assert address_refusal(address) == f"{address} is not a public address"
    assert address_refusal(address, loopback_ok=True) is not None


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_refused_unless_the_destination_may_be_on_it(address: str) -> None:
    assert address_refusal(address) == f"{address} is this machine itself"
    assert address_refusal(address, loopback_ok=True) is None


@pytest.mark.parametrize("address", ["64:ff9b::127.0.0.1", "2002:7f00:0001::1", "::127.0.0.1"])
def test_loopback_in_disguise_is_refused_always(address: str) -> None:
    assert address_refusal(address, loopback_ok=True) is not None


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:0808:0808::1"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert address_refusal(address) is None


@pytest.mark.parametrize("host", ["", "Provider.example", "https://provider.example", "a@b", "[::1]", "a b"])
def test_a_host_that_could_never_match_is_refused_when_it_is_written_down(host: str) -> None:
    with pytest.raises(ValueError, match="lower-case name or a bare address"):
        Destination(host=host)


@pytest.mark.parametrize("address", ["10.0.0.1", "172.31.3.4", "192.168.1.1", "fc00::1", "fd12::1", "::ffff:10.0.0.1"])
def test_private_networks_are_dialled_where_the_operator_says_so(address: str) -> None:
    assert address_refusal(address) is not None
    assert address_refusal(address, private_ok=True) is None


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fd00:ec2::254", "fe80::1", "0.0.0.1", "ff02::1"])
def test_a_private_network_is_not_this_machine_nor_its_metadata(address: str) -> None:
    assert address_refusal(address, private_ok=True) is not None

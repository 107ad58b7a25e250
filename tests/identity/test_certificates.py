"""The local authority and the certificates it issues, judged by OpenSSL's own verification."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from strongroom.identity import Certificate, LocalAuthority
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Broken, Refused

NAMES = ("localhost", "127.0.0.1", "::1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def authority(tmp_path: Path, clock: ManualClock) -> LocalAuthority:
    return LocalAuthority(tmp_path, NAMES, clock)


def read(certificate: Certificate) -> x509.Certificate:
    return x509.load_pem_x509_certificate(certificate.chain.read_bytes())


async def handshake(served: Certificate, trusted: Path, name: str) -> str:
    """The TLS version on which a server with the certificate and a client that trusts the authority agree."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(served.chain, served.key)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = ssl.create_default_context(cafile=trusted)
        client.verify_flags |= ssl.VERIFY_X509_STRICT
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        version = str(writer.get_extra_info("ssl_object").version())
        writer.close()
        return version


@pytest.mark.parametrize("name", NAMES)
async def test_who_trusts_the_authority_trusts_its_servers(authority: LocalAuthority, name: str) -> None:
    assert await handshake(authority.issue("server"), authority.certificate, name) == "TLSv1.3"


async def test_a_certificate_is_for_its_names_only(authority: LocalAuthority) -> None:
    served = authority.issue("server", ["localhost"])
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(served, authority.certificate, "127.0.0.1")


async def test_another_authority_is_not_trusted(authority: LocalAuthority, tmp_path: Path, clock: ManualClock) -> None:
    (tmp_path / "other").mkdir()
    other = LocalAuthority(tmp_path / "other", NAMES, clock)
    other.issue("server")
    with pytest.raises(ssl.SSLCertVerificationError):
        await handshake(authority.issue("server"), other.certificate, "localhost")


def test_the_authority_vouches_for_its_own_names_only(
    authority: LocalAuthority, tmp_path: Path, clock: ManualClock
) -> None:
    authority.issue("server")
    made = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    permitted = made.extensions.get_extension_for_class(x509.NameConstraints)
    assert permitted.critical
    assert {str(name.value) for name in permitted.value.permitted_subtrees or []} == {
        "localhost",
        "127.0.0.1/32",
        "::1/128",
    }
    assert made.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    with pytest.raises(Refused) as refused:
        LocalAuthority(tmp_path, [*NAMES, "pay.example"], clock).issue("server")
    assert refused.value.code == "NAMES_NOT_COVERED"
    assert "pay.example" in str(refused.value)


def test_files_are_for_their_owner_alone(authority: LocalAuthority, tmp_path: Path) -> None:
    authority.issue("server")
    files = {file.name: file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    assert files == dict.fromkeys(("ca.pem", "ca.key", "server.pem", "server.key"), 0o600)


def test_many_processes_that_start_at_once_make_one_certificate(tmp_path: Path, clock: ManualClock) -> None:
    def issue(_: int) -> bytes:
        made = LocalAuthority(tmp_path, NAMES, clock).issue_process("api")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(made.chain, made.key)
        return made.chain.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(issue, range(8)))) == 1


def test_how_long_certificates_last(authority: LocalAuthority, clock: ManualClock) -> None:
    server = read(authority.issue("server"))
    made = x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    assert server.not_valid_after_utc - clock.now() <= timedelta(days=397)
    assert server.not_valid_after_utc - clock.now() > timedelta(days=396)
    assert made.not_valid_after_utc - clock.now() > timedelta(days=3650)


def test_a_certificate_is_kept_until_fewer_than_thirty_days_are_left(
    authority: LocalAuthority, clock: ManualClock
) -> None:
    first = read(authority.issue("server"))
    clock.advance(timedelta(days=366))
    assert read(authority.issue("server")) == first
    clock.advance(timedelta(days=2))
    second = read(authority.issue("server"))
    assert second != first
    assert second.not_valid_after_utc > first.not_valid_after_utc
    second.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.read_bytes()))


def test_other_names_and_another_authority_get_a_new_certificate(authority: LocalAuthority, tmp_path: Path) -> None:
    first = read(authority.issue("server"))
    second = read(authority.issue("server", ["localhost"]))
    assert second != first
    (tmp_path / "ca.pem").unlink()
    third = read(authority.issue("server", ["localhost"]))
    third.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.certificate.read_bytes()))


@pytest.mark.parametrize("damage", ["empty certificate", "no key", "another key"])
def test_a_broken_authority_says_what_to_do(
    authority: LocalAuthority, tmp_path: Path, clock: ManualClock, damage: str
) -> None:
    authority.issue("server")
    if damage == "empty certificate":
        (tmp_path / "ca.pem").write_bytes(b"")
    elif damage == "no key":
        (tmp_path / "ca.key").unlink()
    else:
        (tmp_path / "other").mkdir()
        LocalAuthority(tmp_path / "other", NAMES, clock).issue("server")
        (tmp_path / "other" / "ca.key").replace(tmp_path / "ca.key")
    with pytest.raises(Broken) as broken:
        authority.issue("server")
    assert broken.value.code == "AUTHORITY_BROKEN"


@pytest.mark.parametrize("damage", [b"", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_a_damaged_server_certificate_is_made_again(authority: LocalAuthority, tmp_path: Path, damage: bytes) -> None:
    authority.issue("server")
    (tmp_path / "server.pem").write_bytes(damage)
    read(authority.issue("server")).verify_directly_issued_by(
        x509.load_pem_x509_certificate(authority.certificate.read_bytes())
    )

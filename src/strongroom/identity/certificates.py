"""Certificates for an installation that brings none: a local authority, and what it vouches for.

The authority is made once (P-256, ten years) and may vouch only for the installation's own names (RFC 5280 section
4.2.1.10), so that trusting it puts nobody else at risk. Servers' certificates last 397 days and are renewed when fewer
than 30 are left. Keys are files of mode 0600; `ca.pem` is for everybody who wants to connect.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import secrets
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from strongroom.kernel.clock import Clock
from strongroom.kernel.errors import Broken, Failure, Refused

AUTHORITY_LIFETIME: Final = timedelta(days=3653)
SERVER_LIFETIME: Final = timedelta(days=397)
RENEWED_BEFORE: Final = timedelta(days=30)
_BACKDATED: Final = timedelta(hours=1)
"""For clients whose clock is a little behind ours."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """PEM files: a certificate with its chain, and its key."""

    chain: Path
    key: Path


def own_certificate(chain: Path, key: Path) -> Certificate:
    """One's own certificate.

    Raises errors.Refused (`CERTIFICATE_UNUSABLE`) when the files can't be read or don't belong together.
    """
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise Refused(
            Failure(
                "CERTIFICATE_UNUSABLE",
                "{chain} and {key} can't be used ({reason}). Give a certificate with its chain, and its key without a "
                "password, both in PEM.",
                {"chain": str(chain), "key": str(key), "reason": str(error)},
            )
        ) from None
    return Certificate(chain=chain, key=key)


def _no_password() -> str:
    raise ValueError("the key has a password")


class LocalAuthority:
    """The authority kept in `directory` (`ca.pem`, `ca.key`), made on first use for `names`."""

    def __init__(self, directory: Path, names: Sequence[str], clock: Clock) -> None:
        self._directory = directory
        self._names = tuple(names)
        self._clock = clock

    @property
    def certificate(self) -> Path:
        """The authority's own certificate (PEM), for clients to trust. `issue` makes it."""
        return self._directory / "ca.pem"

    def issue(self, purpose: str, names: Sequence[str] | None = None) -> Certificate:
        """The server certificate `{purpose}.pem` for the names (all of them by default), made or renewed when needed.

        Raises errors.Refused (`NAMES_NOT_COVERED`) when the authority was made for other names, and errors.Broken
        (`AUTHORITY_BROKEN`) when its files can't be read.
        """
        wanted = tuple(names or self._names)
        with _alone(self._directory):
            authority, authority_key = self._authority()
            self._check_covered(authority, wanted)
            general_names = [_general_name(name) for name in wanted]
            return self._issue(purpose, general_names, ExtendedKeyUsageOID.SERVER_AUTH, authority, authority_key)

    def issue_process(self, process: str) -> Certificate:
        """The certificate `process-{process}.pem` by which one of our own processes shows another who it is (mutual
        TLS): good for nothing but that, named `urn:strongroom:process:{process}`. Made or renewed when needed.

        Raises errors.Broken (`AUTHORITY_BROKEN`).
        """
        name = x509.UniformResourceIdentifier(f"urn:strongroom:process:{process}")
        with _alone(self._directory):
            authority, authority_key = self._authority()
            return self._issue(f"process-{process}", [name], ExtendedKeyUsageOID.CLIENT_AUTH, authority, authority_key)

    def _issue(
        self,
        purpose: str,
        wanted: Sequence[x509.GeneralName],
        usage: x509.ObjectIdentifier,
        authority: x509.Certificate,
        authority_key: ec.EllipticCurvePrivateKey,
    ) -> Certificate:
        made = Certificate(chain=self._directory / f"{purpose}.pem", key=self._directory / f"{purpose}.key")
        if self._is_good(made, authority, wanted):
            return made
        key = ec.generate_private_key(ec.SECP256R1())
        now = self._clock.now()
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key())
        certificate = (
            _builder(_name(f"strongroom {purpose}"), authority.subject, key.public_key(), now, SERVER_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.SubjectAlternativeName(wanted), critical=False)
            .add_extension(issuer, critical=False)
            .sign(authority_key, hashes.SHA256())
        )
        chain = certificate.public_bytes(serialization.Encoding.PEM) + self.certificate.read_bytes()
        write_private(made.key, _pem(key))
        write_private(made.chain, chain)
        return made

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key_file = self._directory / "ca.key"
        if not self.certificate.exists():
            self._make(key_file)
        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise _broken(self._directory) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise _broken(self._directory)
        return certificate, key

    def _make(self, key_file: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"strongroom local authority {secrets.token_hex(4)}")
        certificate = (
            _builder(name, name, key.public_key(), self._clock.now(), AUTHORITY_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(x509.NameConstraints([_subtree(name) for name in self._names], None), critical=True)
            .sign(key, hashes.SHA256())
        )
        write_private(key_file, _pem(key))
        write_private(self.certificate, certificate.public_bytes(serialization.Encoding.PEM))

    def _check_covered(self, authority: x509.Certificate, wanted: Sequence[str]) -> None:
        permitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
        missing = [name for name in wanted if not any(_is_within(_subtree(name), subtree) for subtree in permitted)]
        if missing:
            raise Refused(
                Failure(
                    "NAMES_NOT_COVERED",
                    "The local authority was made for other names than {names}. Remove ca.pem and ca.key from {path} "
                    "to have a new one made, and give its certificate to your clients.",
                    {"names": ", ".join(missing), "path": str(self._directory)},
                )
            )

    def _is_good(self, made: Certificate, authority: x509.Certificate, wanted: Sequence[x509.GeneralName]) -> bool:
        """Whether the files are there, whole and of the authority, for the names, with enough time left."""
        try:
            certificate = x509.load_pem_x509_certificate(made.chain.read_bytes())
            key = serialization.load_pem_private_key(made.key.read_bytes(), password=None)
            certificate.verify_directly_issued_by(authority)
            names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (FileNotFoundError, InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
            return False
        return (
            key.public_key() == certificate.public_key()
            and list(names) == list(wanted)
            and certificate.not_valid_after_utc - self._clock.now() >= RENEWED_BEFORE
        )


@contextlib.contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Let no other process make certificates here meanwhile: of two at once, one's key would stand by the other's
    certificate."""
    held = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def write_private(path: Path, content: bytes) -> None:
    """Put a file in place whole, readable by its owner alone."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, lifetime: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _BACKDATED)
        .not_valid_after(now.astimezone(UTC) + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _is_within(name: x509.GeneralName, subtree: x509.GeneralName) -> bool:
    """Whether a subtree has a name: itself, or a DNS name with more labels to its left (RFC 5280 section 4.2.1.10)."""
    if isinstance(name, x509.DNSName) and isinstance(subtree, x509.DNSName):
        return name.value == subtree.value or name.value.endswith(f".{subtree.value}")
    return name == subtree


def _subtree(name: str) -> x509.GeneralName:
    """The name alone, as a subtree of one."""
    try:
        return x509.IPAddress(ipaddress.ip_network(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _broken(directory: Path) -> Broken:
    return Broken(
        Failure(
            "AUTHORITY_BROKEN",
            "ca.pem and ca.key in {path} can't be read or don't belong together. Restore them from your backup of the "
            "keys, or remove both to have a new authority made.",
            {"path": str(directory)},
        )
    )

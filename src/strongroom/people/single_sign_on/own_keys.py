"""Our own key with a provider: what we sign with (and, for SAML, what assertions are encrypted for).

A pair for each account, so that no account's provider can have anything to do with another's.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from joserfc.jwk import ECKey

_RSA_BITS: Final = 3072
_BEGIN: Final = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
_END: Final = datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnKey:
    """A private key (PKCS#8, PEM), and for SAML the certificate that carries its public half (X.509, PEM)."""

    private_pem: str = field(repr=False)
    certificate_pem: str = ""

    def ec_key(self) -> ECKey:
        """The key as a JSON Web Key with its thumbprint as id (RFC 7638)."""
        key = ECKey.import_key(self.private_pem)
        return ECKey.import_key({**key.as_dict(private=True), "kid": key.thumbprint()})

    def public_key_set(self) -> dict[str, Any]:
        """The public half, as a JSON Web Key Set (RFC 7517 section 5)."""
        return {"keys": [{**self.ec_key().as_dict(private=False), "use": "sig", "alg": "ES256"}]}

    def rsa_key(self) -> rsa.RSAPrivateKey:
        """The key of an account whose provider speaks SAML."""
        key = serialization.load_pem_private_key(self.private_pem.encode(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            raise TypeError("this key is for OpenID Connect")
        return key


def new_ec_key() -> OwnKey:
    """A key on P-256, for ES256."""
    return OwnKey(private_pem=_pem(ec.generate_private_key(ec.SECP256R1())))


def new_rsa_key() -> OwnKey:
    """An RSA key, with a certificate that says nothing but the key: metadata is how SAML trusts one."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "strongroom single sign-on")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .sign(key, hashes.SHA256())
    )
    return OwnKey(private_pem=_pem(key), certificate_pem=certificate.public_bytes(serialization.Encoding.PEM).decode())


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()

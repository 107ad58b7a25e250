"""A SAML identity provider of the test's making: says whatever it is told to, and signs and encrypts it."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from strongroom.people.single_sign_on.own_keys import OwnKey, new_rsa_key

ENTITY = "https://idp.example/metadata"
SIGN_IN = "https://idp.example/sign-in"
A = "urn:oasis:names:tc:SAML:2.0:assertion"
P = "urn:oasis:names:tc:SAML:2.0:protocol"
DS = "{http://www.w3.org/2000/09/xmldsig#}"
XENC = "http://www.w3.org/2001/04/xmlenc#"
BEARER = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
SUCCESS = "urn:oasis:names:tc:SAML:2.0:status:Success"
GCM = "http://www.w3.org/2009/xmlenc11#aes256-gcm"
OAEP = "http://www.w3.org/2009/xmlenc11#rsa-oaep"
Change = Callable[[etree._Element], None]


class LaxSigner(XMLSigner):
    """Signs with SHA-1 as well, which nobody should."""

    def check_deprecated_methods(self) -> None:
        """Refuses nothing."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What a response says. Times are relative to when it is made; None leaves a thing out."""

    audience: str | None
    recipient: str | None
    destination: str | None
    in_response_to: str | None
    name_id: str = "ada@mutual.example"
    issuer: str = ENTITY
    status: str = SUCCESS
    method: str = BEARER
    issued: timedelta = timedelta(0)
    begins: timedelta | None = timedelta(0)
    ends: timedelta | None = timedelta(minutes=5)
    confirmed_until: timedelta | None = timedelta(minutes=5)
    session_ends: timedelta | None = None
    has_statement: bool = True
    groups: tuple[str, ...] = ("Claims",)
    version: str = "2.0"
    subject_in_response_to: str | None = ""
    """Empty: as the response's."""
    condition: str = ""
    """A further condition's name."""


@dataclass(kw_only=True)
class IdentityProvider:
    """One with a key; makes responses and their XML as bytes."""

    own: OwnKey = field(default_factory=new_rsa_key)

    @property
    def metadata(self) -> str:
        """What it publishes."""
        return (
            f'<md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" xmlns:ds="{DS[1:-1]}" '
            f'entityID="{ENTITY}"><md:IDPSSODescriptor protocolSupportEnumeration="{P}"><md:KeyDescriptor '
            f'use="signing"><ds:KeyInfo><ds:X509Data><ds:X509Certificate>{self.bare}</ds:X509Certificate>'
            "</ds:X509Data></ds:KeyInfo></md:KeyDescriptor><md:SingleSignOnService "
            f'Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect" Location="{SIGN_IN}"/>'
            "</md:IDPSSODescriptor></md:EntityDescriptor>"
        )

    @property
    def bare(self) -> str:
        """Its certificate in base64."""
        return "".join(line for line in self.own.certificate_pem.splitlines() if "-----" not in line)

    def sign(
        self,
        element: etree._Element,
        *,
        method: SignatureMethod = SignatureMethod.RSA_SHA256,
        digest: DigestAlgorithm = DigestAlgorithm.SHA256,
        c14n: CanonicalizationMethod = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
        lax: bool = False,
    ) -> etree._Element:
        """The element with its signature, at the place where SAML wants it."""
        kind = LaxSigner if lax else XMLSigner
        signer = kind(signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=c14n)
        signed = signer.sign(
            element, key=self.own.private_pem.encode(), cert=self.own.certificate_pem, reference_uri=element.get("ID")
        )
        signature = signed.find(f"{DS}Signature")
        signed.remove(signature)
        signed.insert(1, signature)
        return signed

    def assertion(self, said: Said) -> etree._Element:
        """An assertion, unsigned."""
        root = etree.Element(
            f"{{{A}}}Assertion",
            {"ID": new_id(), "Version": said.version, "IssueInstant": stamp(said, said.issued)},
            nsmap={"saml": A},
        )
        add(root, "Issuer").text = said.issuer
        subject = add(root, "Subject")
        add(subject, "NameID").text = said.name_id
        asked = said.in_response_to if said.subject_in_response_to == "" else said.subject_in_response_to
        data = {"Recipient": said.recipient, "InResponseTo": asked, "NotOnOrAfter": stamp(said, said.confirmed_until)}
        add(
            add(subject, "SubjectConfirmation", {"Method": said.method}),
            "SubjectConfirmationData",
            {name: value for name, value in data.items() if value},
        )
        limits = {"NotBefore": stamp(said, said.begins), "NotOnOrAfter": stamp(said, said.ends)}
        conditions = add(root, "Conditions", {name: value for name, value in limits.items() if value})
        if said.audience is not None:
            add(add(conditions, "AudienceRestriction"), "Audience").text = said.audience
        if said.condition:
            add(conditions, said.condition)
        if said.has_statement:
            ends = stamp(said, said.session_ends)
            statement = {"AuthnInstant": stamp(said, timedelta(0)), "SessionIndex": "s-1"}
            add(root, "AuthnStatement", {**statement, **({"SessionNotOnOrAfter": ends} if ends else {})})
        attributes = add(root, "AttributeStatement")
        groups = add(attributes, "Attribute", {"Name": "groups"})
        for group in said.groups:
            add(groups, "AttributeValue").text = group
        return root

    def response(self, said: Said, *inside: etree._Element) -> etree._Element:
        """A response around this, unsigned."""
        attributes = {
            "ID": new_id(),
            "Version": said.version,
            "IssueInstant": stamp(said, said.issued),
            "Destination": said.destination,
            "InResponseTo": said.in_response_to,
        }
        root = etree.Element(
            f"{{{P}}}Response",
            {name: value for name, value in attributes.items() if value},
            nsmap={"samlp": P, "saml": A},
        )
        add(root, "Issuer").text = said.issuer
        status = etree.SubElement(root, f"{{{P}}}Status")
        etree.SubElement(status, f"{{{P}}}StatusCode", {"Value": said.status})
        root.extend(inside)
        return root

    def signed(self, said: Said, **changes: object) -> etree._Element:
        """A response with a signed assertion."""
        return self.response(replace(said, **changes), self.sign(self.assertion(replace(said, **changes))))  # type: ignore[arg-type]  # fields by name


def encrypt(
    assertion: etree._Element, certificate: str, *, cipher: str = GCM, wrapping: str = OAEP, spoil: bool = False
) -> etree._Element:
    """An encrypted assertion, for whoever has this certificate (PEM)."""
    public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    key, nonce = os.urandom(32), os.urandom(12)
    content = nonce + AESGCM(key).encrypt(nonce, etree.tostring(assertion), None)
    if spoil:
        content = content[:-1] + bytes([content[-1] ^ 1])
    wrapped = public.encrypt(
        key, padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    )
    return etree.fromstring(
        f'<saml:EncryptedAssertion xmlns:saml="{A}" xmlns:xenc="{XENC}" xmlns:ds="{DS[1:-1]}">'
        f'<xenc:EncryptedData><xenc:EncryptionMethod Algorithm="{cipher}"/><ds:KeyInfo><xenc:EncryptedKey>'
        f'<xenc:EncryptionMethod Algorithm="{wrapping}"><ds:DigestMethod Algorithm="{XENC}sha256"/>'
        '<xenc11:MGF xmlns:xenc11="http://www.w3.org/2009/xmlenc11#" '
        'Algorithm="http://www.w3.org/2009/xmlenc11#mgf1sha256"/></xenc:EncryptionMethod><xenc:CipherData><xenc:CipherValue>'
        f"{base64.b64encode(wrapped).decode()}</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey></ds:KeyInfo>"
        f"<xenc:CipherData><xenc:CipherValue>{base64.b64encode(content).decode()}</xenc:CipherValue>"
        "</xenc:CipherData></xenc:EncryptedData></saml:EncryptedAssertion>"
    )


def encoded(response: etree._Element | bytes) -> str:
    """A response as a form carries it."""
    content = response if isinstance(response, bytes) else etree.tostring(response)
    return base64.b64encode(content).decode()


def add(parent: etree._Element, name: str, attributes: dict[str, str] | None = None) -> etree._Element:
    return etree.SubElement(parent, f"{{{A}}}{name}", attributes or {})


def stamp(said: Said, offset: timedelta | None) -> str:
    return "" if offset is None else f"{datetime.now(UTC) + offset:%Y-%m-%dT%H:%M:%SZ}"


def new_id() -> str:
    return "_" + os.urandom(16).hex()


def request_name(request_id: UUID) -> str:
    return f"_{request_id.hex}"

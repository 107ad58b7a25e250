"""SAML 2.0: the web browser profile, with requests by redirect and answers by POST.

After SAML 2.0 Core, Bindings, Profiles (section 4.1) and Metadata. The response or the assertion is signed, or both,
and every signature that is there has to be right; what isn't covered by one is not looked at. An assertion counts for
us (audience), here (recipient, destination), now (conditions, subject confirmation), for the request that is open, and
once (the caller's part). Answers to nothing that we asked are taken where the account says so.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import quote, urlsplit
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from lxml import etree

from strongroom.kernel.errors import Failure, Invalid, StrongroomError
from strongroom.people.single_sign_on.claims import Claims, refused, word
from strongroom.people.single_sign_on.providers import Provider, SamlSettings
from strongroom.people.single_sign_on.xml import (
    DS,
    decode_base64,
    is_signed,
    open_encrypted,
    read_certificate,
    read_signed,
    read_xml,
)

SKEW: Final = timedelta(seconds=60)
"""How far apart a provider's clock and ours may be."""
MAX_AGE: Final = timedelta(minutes=10)
"""How old an assertion may be, whatever it says itself."""
_EARLIEST: Final = datetime(1000, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Providers write "always" as the first or last instant there is, from which nothing can be counted on."""
MAX_CERTIFICATES: Final = 10
MAX_GROUPS: Final = 1_000
_PROTOCOL: Final = "urn:oasis:names:tc:SAML:2.0:protocol"
_ASSERTION: Final = "urn:oasis:names:tc:SAML:2.0:assertion"
_METADATA: Final = "urn:oasis:names:tc:SAML:2.0:metadata"
_P: Final = f"{{{_PROTOCOL}}}"
_A: Final = f"{{{_ASSERTION}}}"
_M: Final = f"{{{_METADATA}}}"
_SUCCESS: Final = "urn:oasis:names:tc:SAML:2.0:status:Success"
_BEARER: Final = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
_TRANSIENT: Final = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
_POST: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
_REDIRECT: Final = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_RSA_SHA256: Final = "http://www.w3.org/2001/04/xmldsig-more#rsa-sha256"
_CONDITIONS: Final = frozenset({f"{_A}AudienceRestriction", f"{_A}OneTimeUse", f"{_A}ProxyRestriction"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A response that counts. `request_id`: of the request that it answers, None for one that nobody asked for.

    After `ends_at` the assertion counts no more by itself.
    """

    claims: Claims
    assertion_id: str
    request_id: UUID | None
    ends_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """We, towards one provider. `entity_id` is who we are to it, `answers_url` where it sends its answers."""

    provider: Provider
    entity_id: str
    answers_url: str

    @property
    def settings(self) -> SamlSettings:
        """The provider's settings."""
        if self.provider.saml is None:
            raise LookupError("this provider doesn't speak SAML")
        return self.provider.saml

    def request_url(self, request_id: UUID, now: datetime, *, afresh: bool = False) -> str:
        """Where the browser goes: a signed request by redirect (Bindings section 3.4.4.1).

        `afresh`: for somebody to prove themselves anew (`ForceAuthn`, Core section 3.4.1).
        """
        request = etree.Element(
            f"{_P}AuthnRequest",
            {
                "ID": _request_name(request_id),
                "Version": "2.0",
                "IssueInstant": f"{now:%Y-%m-%dT%H:%M:%SZ}",
                "Destination": self.settings.sign_in_url,
                "AssertionConsumerServiceURL": self.answers_url,
                "ProtocolBinding": _POST,
                **({"ForceAuthn": "true"} if afresh else {}),
            },
            nsmap={"samlp": _PROTOCOL, "saml": _ASSERTION},
        )
        etree.SubElement(request, f"{_A}Issuer").text = self.entity_id
        packer = zlib.compressobj(wbits=-15)
        packed = base64.b64encode(packer.compress(etree.tostring(request)) + packer.flush()).decode()
        signed = f"SAMLRequest={quote(packed, safe='')}&SigAlg={quote(_RSA_SHA256, safe='')}"
        signature = self.provider.key.rsa_key().sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        url = self.settings.sign_in_url
        glue = "&" if "?" in url else "?"
        return f"{url}{glue}{signed}&Signature={quote(base64.b64encode(signature).decode(), safe='')}"

    def read_answer(self, encoded: str, now: datetime) -> Answered:
        """What a response says. Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`)."""
        certificates = [read_certificate(text) for text in self.settings.certificates]
        response = read_xml(decode_base64(encoded))
        if response.tag != f"{_P}Response":
            raise refused("it is no response")
        is_covered = is_signed(response)
        if is_covered:
            response = read_signed(response, certificates)
        self._check_response(response, now)
        assertion = self._assertion(response, certificates, is_covered=is_covered)
        _check_stamp(assertion, now)
        if _one_text(assertion, f"{_A}Issuer") != self.settings.entity_id:
            raise refused("the assertion is of another provider")
        request_id = self._request_id(response)
        ends_at = min(self._check_subject(assertion, response, now), self._check_conditions(assertion, now))
        session, session_ends = self._check_statement(assertion, now)
        return Answered(
            claims=self._claims(assertion, session, session_ends),
            assertion_id=assertion.get("ID", ""),
            request_id=request_id,
            ends_at=max(ends_at, now + MAX_AGE) + 2 * SKEW,
        )

    def metadata(self) -> bytes:
        """What the provider has to know of us (Metadata section 2.4.4)."""
        certificate = "".join(line for line in self.provider.key.certificate_pem.splitlines() if "-----" not in line)
        root = etree.Element(
            f"{_M}EntityDescriptor", {"entityID": self.entity_id}, nsmap={"md": _METADATA, "ds": DS[1:-1]}
        )
        ours = etree.SubElement(
            root,
            f"{_M}SPSSODescriptor",
            {"AuthnRequestsSigned": "true", "WantAssertionsSigned": "true", "protocolSupportEnumeration": _PROTOCOL},
        )
        for use in ("signing", "encryption"):
            described = etree.SubElement(ours, f"{_M}KeyDescriptor", {"use": use})
            data = etree.SubElement(etree.SubElement(described, f"{DS}KeyInfo"), f"{DS}X509Data")
            etree.SubElement(data, f"{DS}X509Certificate").text = certificate
            if use == "encryption":
                for algorithm in (
                    "http://www.w3.org/2009/xmlenc11#aes256-gcm",
                    "http://www.w3.org/2009/xmlenc11#aes128-gcm",
                    "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p",
                ):
                    etree.SubElement(described, f"{_M}EncryptionMethod", {"Algorithm": algorithm})
        etree.SubElement(
            ours,
            f"{_M}AssertionConsumerService",
            {"Binding": _POST, "Location": self.answers_url, "index": "0", "isDefault": "true"},
        )
        return etree.tostring(root, xml_declaration=True, encoding="UTF-8")

    def _check_response(self, response: etree._Element, now: datetime) -> None:
        _check_stamp(response, now)
        if response.get("Destination", self.answers_url) != self.answers_url:
            raise refused("it was sent to somewhere else")
        issuer = response.find(f"{_A}Issuer")
        if issuer is not None and _text(issuer) != self.settings.entity_id:
            raise refused("it is of another provider")
        status = response.find(f"{_P}Status/{_P}StatusCode")
        code = "" if status is None else status.get("Value", "")
        if code != _SUCCESS:
            raise refused(f"the provider says {word(code.rpartition(':')[2])}")

    def _assertion(
        self, response: etree._Element, certificates: Sequence[x509.Certificate], *, is_covered: bool
    ) -> etree._Element:
        """The one assertion, covered by a signature."""
        everywhere = [*response.iter(f"{_A}Assertion", f"{_A}EncryptedAssertion")]
        if len(everywhere) != 1 or everywhere[0].getparent() is not response:
            raise refused("it doesn't hold just one assertion")
        assertion = everywhere[0]
        if assertion.tag == f"{_A}EncryptedAssertion":
            assertion = open_encrypted(assertion, self.provider.key.rsa_key())
            if assertion.tag != f"{_A}Assertion" or [*assertion.iter(f"{_A}Assertion")] != [assertion]:
                raise refused("what is encrypted is no assertion")
        allowed = {id(parent) for parent in (response, assertion)}
        if any(
            id(one.getparent()) not in allowed for root in (response, assertion) for one in root.iter(f"{DS}Signature")
        ):
            raise refused("a signature stands where none belongs")
        if is_signed(assertion):
            return read_signed(assertion, certificates)
        if not is_covered:
            raise refused("neither it nor its assertion is signed")
        return assertion

    def _request_id(self, response: etree._Element) -> UUID | None:
        """The request that is answered."""
        name = response.get("InResponseTo")
        if name is None:
            if not self.settings.takes_unrequested:
                raise refused("nobody here asked for it, and this account takes no sign-ins that begin at the provider")
            return None
        try:
            request_id = UUID(hex=name.removeprefix("_"))
        except ValueError:
            raise refused("it answers a request that isn't ours") from None
        if _request_name(request_id) != name:
            raise refused("it answers a request that isn't ours")
        return request_id

    def _check_subject(self, assertion: etree._Element, response: etree._Element, now: datetime) -> datetime:
        """One of the subject's confirmations is for us, here and now; until when."""
        ends = []
        for confirmation in assertion.findall(f"{_A}Subject/{_A}SubjectConfirmation"):
            data = confirmation.find(f"{_A}SubjectConfirmationData")
            if confirmation.get("Method") != _BEARER or data is None:
                continue
            end = _instant(data.get("NotOnOrAfter"))
            if (
                data.get("Recipient") == self.answers_url
                and data.get("NotBefore") is None
                and data.get("InResponseTo") == response.get("InResponseTo")
                and end is not None
                and now < end + SKEW
            ):
                ends.append(end)
        if not ends:
            raise refused("its subject is not confirmed for us, here, now and for this request")
        return min(ends)

    def _check_conditions(self, assertion: etree._Element, now: datetime) -> datetime:
        """The conditions hold; until when."""
        conditions = assertion.findall(f"{_A}Conditions")
        if len(conditions) != 1:
            raise refused("it doesn't say under which conditions it counts")
        begin, end = conditions[0].get("NotBefore"), conditions[0].get("NotOnOrAfter")
        begins, ends = _instant(begin), _instant(end)
        if (begin is not None and begins is None) or (end is not None and ends is None):
            raise refused("its conditions hold no instants that can be read")
        if begins is not None and now < begins - SKEW:
            raise refused("it doesn't count yet; look at the clocks")
        if ends is not None and now >= ends + SKEW:
            raise refused("it has expired")
        if any(one.tag not in _CONDITIONS for one in conditions[0]):
            raise refused("it has a condition that isn't known")
        audiences = [
            {_text(one) for one in restriction.findall(f"{_A}Audience")}
            for restriction in conditions[0].findall(f"{_A}AudienceRestriction")
        ]
        if not audiences or not all(self.entity_id in allowed for allowed in audiences):
            raise refused("it is for somebody else")
        return ends if ends is not None else now + MAX_AGE

    def _check_statement(self, assertion: etree._Element, now: datetime) -> tuple[str, datetime | None]:
        """Somebody has authenticated; what the provider calls its session, and until when it goes, if it says so."""
        statements = assertion.findall(f"{_A}AuthnStatement")
        if not statements:
            raise refused("it doesn't say that anybody signed in")
        session_ends = None
        for statement in statements:
            ends = statement.get("SessionNotOnOrAfter")
            until = _instant(ends)
            if ends is not None and (until is None or now >= until + SKEW):
                raise refused("the provider's session has ended")
            if until is not None:
                session_ends = until if session_ends is None else min(session_ends, until)
        return statements[0].get("SessionIndex", ""), session_ends

    def _claims(self, assertion: etree._Element, session: str, session_ends: datetime | None) -> Claims:
        names = assertion.findall(f"{_A}Subject/{_A}NameID")
        if len(names) != 1 or not _text(names[0]):
            raise refused("it doesn't name just one subject")
        settings, name = self.settings, _text(names[0])
        address = self._first(assertion, settings.address_attribute) if settings.address_attribute else name
        # A transient name is another one each time, so the address has to do.
        subject = f"address {address}" if names[0].get("Format") == _TRANSIENT else name
        return Claims(
            subject=f"{names[0].get('NameQualifier') or ''}\0{subject}",
            address=address,
            name=self._first(assertion, settings.name_attribute) if settings.name_attribute else "",
            groups=self._all(assertion, settings.groups_attribute),
            session=session,
            session_ends=session_ends,
            proven_at=_instant(assertion.findall(f"{_A}AuthnStatement")[0].get("AuthnInstant")),
        )

    def _first(self, assertion: etree._Element, attribute: str) -> str:
        found = self._all(assertion, attribute)
        if len(found) > 1:
            raise refused(f"the attribute {attribute[:100]} has several values")
        return found[0] if found else ""

    def _all(self, assertion: etree._Element, attribute: str) -> tuple[str, ...]:
        values = [
            _text(value)
            for one in assertion.findall(f"{_A}AttributeStatement/{_A}Attribute")
            if attribute and attribute in {one.get("Name"), one.get("FriendlyName")}
            for value in one.findall(f"{_A}AttributeValue")
        ]
        return tuple(dict.fromkeys(value for value in values[:MAX_GROUPS] if value))


def read_metadata(content: bytes) -> tuple[str, str, tuple[str, ...]]:
    """A provider's entity id, its sign-in address (by redirect) and the certificates (PEM) that it signs under.

    Raises errors.Invalid (`METADATA_IS_INVALID`).
    """
    try:
        root = read_xml(content)
    except StrongroomError as error:
        raise _no_metadata(str(error)) from None
    if root.tag != f"{_M}EntityDescriptor":
        raise _no_metadata("it is no EntityDescriptor")
    ways = [
        one.get("Location", "")
        for one in root.findall(f"{_M}IDPSSODescriptor/{_M}SingleSignOnService")
        if one.get("Binding") == _REDIRECT
    ]
    keys = [
        _text(one)
        for described in root.findall(f"{_M}IDPSSODescriptor/{_M}KeyDescriptor")
        if described.get("use", "signing") == "signing"
        for one in described.iter(f"{DS}X509Certificate")
    ]
    entity_id = root.get("entityID", "")
    if not entity_id or not ways or not keys:
        raise _no_metadata("it has no entityID, no SingleSignOnService by HTTP-Redirect, or no signing certificate")
    return entity_id, ways[0], tuple(dict.fromkeys(as_pem(key) for key in keys[:MAX_CERTIFICATES]))


def as_pem(text: str) -> str:
    """A certificate as it is kept. Raises errors.Invalid (`CERTIFICATES_IS_INVALID`)."""
    try:
        return read_certificate(text).public_bytes(serialization.Encoding.PEM).decode()
    except ValueError:
        raise Invalid(
            Failure(
                "CERTIFICATES_IS_INVALID", "certificates are X.509, as PEM or base64, with RSA keys from 2048 bits."
            )
        ) from None


def is_address(url: str) -> bool:
    """Whether browsers can be sent there."""
    return urlsplit(url).scheme == "https" and bool(urlsplit(url).hostname)


def _request_name(request_id: UUID) -> str:
    """An ID may not begin with a digit (XML Schema, type ID)."""
    return f"_{request_id.hex}"


def _check_stamp(element: etree._Element, now: datetime) -> None:
    """What responses and assertions have in common."""
    issued = _instant(element.get("IssueInstant"))
    if element.get("Version") != "2.0" or not element.get("ID") or issued is None:
        raise refused("it has no version, ID or instant")
    if issued > now + SKEW:
        raise refused("it is from the future; look at the clocks")
    if now - issued > MAX_AGE + SKEW:
        raise refused("it is too old")


def _one_text(element: etree._Element, path: str) -> str:
    found = element.findall(path)
    return _text(found[0]) if len(found) == 1 else ""


def _text(element: etree._Element) -> str:
    """An element's text; one that holds anything else has none."""
    return "" if len(element) else (element.text or "").strip()


def _instant(text: str | None) -> datetime | None:
    """An instant in UTC (Core section 1.3.3), no further away than can be counted with, or None."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return None if found.tzinfo is None else min(max(found, _EARLIEST), _LATEST)


def _no_metadata(reason: str) -> Invalid:
    return Invalid(Failure("METADATA_IS_INVALID", "This metadata can't be used: {reason}.", {"reason": reason[:300]}))

"""SAML 2.0: what counts, and more than forty kinds of what doesn't."""

from __future__ import annotations

import base64
import copy
import dataclasses
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from uuid import UUID

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509 import load_pem_x509_certificate
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod

from strongroom.kernel.errors import Invalid, Unauthenticated
from strongroom.kernel.ids import new_uuid
from strongroom.people.single_sign_on.own_keys import new_rsa_key
from strongroom.people.single_sign_on.providers import Provider, SamlSettings
from strongroom.people.single_sign_on.saml import Answered, Client, read_metadata
from tests.people.single_sign_on.identity_provider import (
    DS,
    ENTITY,
    SIGN_IN,
    A,
    IdentityProvider,
    P,
    Said,
    encoded,
    encrypt,
    new_id,
    request_name,
)

US = "https://strongroom.test/portal/single-sign-on/x/metadata"
HERE = "https://strongroom.test/portal/single-sign-on/x/answer"
OUR_KEY = new_rsa_key()
THEM = IdentityProvider()
STRANGER = IdentityProvider()
REQUEST = new_uuid()
SAID = Said(audience=US, recipient=HERE, destination=HERE, in_response_to=request_name(REQUEST))
UNASKED = dataclasses.replace(SAID, in_response_to=None)
MINUTE = timedelta(minutes=1)


def client(**changes: Any) -> Client:
    settings = SamlSettings(entity_id=ENTITY, sign_in_url=SIGN_IN, certificates=(THEM.own.certificate_pem,), **changes)
    return Client(provider=Provider(name="", saml=settings, own_key=OUR_KEY), entity_id=US, answers_url=HERE)


def read(response: etree._Element | bytes, **changes: Any) -> Answered:
    return client(**changes).read_answer(encoded(response), datetime.now(UTC))


def check(answered: Answered, request_id: UUID | None = REQUEST) -> None:
    assert answered.claims.address == "ada@mutual.example"
    assert answered.claims.groups == ("Claims",)
    assert answered.claims.session == "s-1"
    assert answered.request_id == request_id
    assert answered.ends_at > datetime.now(UTC) + 5 * MINUTE


def test_a_signed_assertion_counts() -> None:
    check(read(THEM.signed(SAID)))


def test_a_signed_response_counts() -> None:
    check(read(THEM.sign(THEM.response(SAID, THEM.assertion(SAID)))))


def test_both_signed_count() -> None:
    check(read(THEM.sign(THEM.signed(SAID))))


def test_an_encrypted_assertion_counts() -> None:
    hidden = encrypt(THEM.sign(THEM.assertion(SAID)), OUR_KEY.certificate_pem)
    response = THEM.response(SAID, hidden)
    assert b"ada@" not in etree.tostring(response)
    check(read(response))


def test_a_signed_response_around_an_encrypted_assertion_counts() -> None:
    check(read(THEM.sign(THEM.response(SAID, encrypt(THEM.assertion(SAID), OUR_KEY.certificate_pem)))))


def test_a_second_certificate_of_the_provider_counts() -> None:
    settings = dataclasses.replace(
        client().settings, certificates=(STRANGER.own.certificate_pem, THEM.own.certificate_pem)
    )
    rotated = dataclasses.replace(client(), provider=Provider(name="", saml=settings, own_key=OUR_KEY))
    check(rotated.read_answer(encoded(THEM.signed(SAID)), datetime.now(UTC)))


def test_what_nobody_asked_for_counts_where_the_account_says_so() -> None:
    check(read(THEM.signed(UNASKED), takes_unrequested=True), None)
    with pytest.raises(Unauthenticated, match="nobody here asked for it"):
        read(THEM.signed(UNASKED))


def test_clocks_may_be_a_little_apart() -> None:
    check(read(THEM.signed(SAID, begins=timedelta(seconds=50), issued=timedelta(seconds=50))))
    check(read(THEM.signed(SAID, ends=timedelta(seconds=-50))))


def saying(path: str, name: str, instant: str) -> etree._Element:
    """A response whose signed assertion says this at one place."""
    assertion = THEM.assertion(SAID)
    found = assertion if not path else assertion.find(f".//{{{A}}}{path}")
    assert found is not None
    found.set(name, instant)
    return THEM.response(SAID, THEM.sign(assertion))


FIRST, LAST = "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"
ENDLESS = {
    "its conditions": ("Conditions", "NotOnOrAfter", LAST),
    "their beginning": ("Conditions", "NotBefore", FIRST),
    "its confirmation": ("SubjectConfirmationData", "NotOnOrAfter", LAST),
    "its session": ("AuthnStatement", "SessionNotOnOrAfter", LAST),
}
NEVER = {
    "made at the end of time": ("", "IssueInstant", LAST),
    "made at its beginning": ("", "IssueInstant", FIRST),
    "counts from the end of time": ("Conditions", "NotBefore", LAST),
    "counts until its beginning": ("Conditions", "NotOnOrAfter", FIRST),
    "confirmed until its beginning": ("SubjectConfirmationData", "NotOnOrAfter", FIRST),
    "a session until its beginning": ("AuthnStatement", "SessionNotOnOrAfter", FIRST),
    "before time, elsewhere": ("Conditions", "NotOnOrAfter", "0001-01-01T00:00:00+14:00"),
}


@pytest.mark.parametrize("said", ENDLESS.values(), ids=ENDLESS.keys())
def test_always_is_written_as_the_first_or_last_instant(said: tuple[str, str, str]) -> None:
    check(read(saying(*said)))


@pytest.mark.parametrize("said", NEVER.values(), ids=NEVER.keys())
def test_the_first_and_last_instants_are_refused_like_others(said: tuple[str, str, str]) -> None:
    with pytest.raises(Unauthenticated):
        read(saying(*said))


def test_until_when_the_provider_says_that_its_session_goes() -> None:
    assert read(THEM.signed(SAID)).claims.session_ends is None
    response = THEM.signed(SAID, session_ends=MINUTE)
    said = next(response.iter(f"{{{A}}}AuthnStatement")).get("SessionNotOnOrAfter")
    assert said and read(response).claims.session_ends == datetime.fromisoformat(said)


def test_when_somebody_proved_themselves() -> None:
    said = saying("AuthnStatement", "AuthnInstant", "2026-01-02T03:04:05Z")
    assert read(said).claims.proven_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert read(saying("AuthnStatement", "AuthnInstant", "lately")).claims.proven_at is None


def assertion_in(response: etree._Element) -> etree._Element:
    found = response.find(f"{{{A}}}Assertion")
    assert found is not None
    return found


def signature_in(element: etree._Element) -> etree._Element:
    found = element.find(f"{DS}Signature")
    assert found is not None
    return found


def evil(assertion: etree._Element, *, same_id: bool = False) -> etree._Element:
    """A copy for Eve, without its signature."""
    made = copy.deepcopy(assertion)
    for signature in made.findall(f"{DS}Signature"):
        made.remove(signature)
    name = made.find(f".//{{{A}}}NameID")
    assert name is not None
    name.text = "eve@mutual.example"
    if not same_id:
        made.set("ID", new_id())
    return made


def _xsw1() -> etree._Element:
    """A copy of the signed response stands inside its own signature; the outer one is Eve's."""
    response = THEM.sign(THEM.response(SAID, THEM.assertion(SAID)))
    original, signature = copy.deepcopy(response), signature_in(response)
    original.remove(signature_in(original))
    etree.SubElement(signature, f"{DS}Object").append(original)
    response.set("ID", new_id())
    response.replace(assertion_in(response), evil(assertion_in(response)))
    return response


def _xsw2() -> etree._Element:
    """The signed response stands before the signature in Eve's."""
    response = THEM.sign(THEM.response(SAID, THEM.assertion(SAID)))
    original = copy.deepcopy(response)
    original.remove(signature_in(original))
    response.insert(1, original)
    response.set("ID", new_id())
    response.replace(assertion_in(response), evil(assertion_in(response)))
    return response


def _xsw3() -> etree._Element:
    """Eve's assertion comes first."""
    response = THEM.signed(SAID)
    assertion = assertion_in(response)
    assertion.addprevious(evil(assertion))
    return response


def _xsw4() -> etree._Element:
    """Eve's assertion holds the signed one."""
    response = THEM.signed(SAID)
    assertion = assertion_in(response)
    made = evil(assertion)
    response.replace(assertion, made)
    made.append(assertion)
    return response


def _xsw5() -> etree._Element:
    """Eve's assertion has the signature, the signed one follows without."""
    response = THEM.signed(SAID)
    assertion = assertion_in(response)
    made, signature = evil(assertion), signature_in(assertion)
    assertion.remove(signature)
    made.insert(1, signature)
    assertion.addprevious(made)
    return response


def _xsw6() -> etree._Element:
    """As before, with the signed one inside the signature."""
    response = THEM.signed(SAID)
    assertion = assertion_in(response)
    made, signature = evil(assertion), signature_in(assertion)
    assertion.remove(signature)
    response.replace(assertion, made)
    signature.append(assertion)
    made.insert(1, signature)
    return response


def _xsw7() -> etree._Element:
    """Eve's assertion in an extension."""
    response = THEM.signed(SAID)
    extensions = etree.Element(f"{{{P}}}Extensions")
    extensions.append(evil(assertion_in(response), same_id=True))
    response.insert(1, extensions)
    return response


def _xsw8() -> etree._Element:
    """The signed assertion is an object in the signature of Eve's."""
    response = THEM.signed(SAID)
    assertion = assertion_in(response)
    made, signature = evil(assertion, same_id=True), signature_in(assertion)
    original = copy.deepcopy(assertion)
    original.remove(signature_in(original))
    assertion.remove(signature)
    etree.SubElement(signature, f"{DS}Object").append(original)
    response.replace(assertion, made)
    made.insert(1, signature)
    return response


def _changed(path: str, value: str) -> Callable[[], etree._Element]:
    """The text of something signed is another one."""

    def make() -> etree._Element:
        response = THEM.signed(SAID)
        found = response.find(path)
        assert found is not None
        found.text = value
        return response

    return make


def _comment() -> bytes:
    """ada@mutual.example<!---->.evil.example: signed whole, read by halves."""
    signed = etree.tostring(THEM.signed(SAID, name_id="ada@mutual.example.evil.example"))
    return signed.replace(b"ada@mutual.example.evil", b"ada@mutual.example<!---->.evil")


def _entity() -> bytes:
    content = etree.tostring(THEM.signed(SAID))
    return b'<!DOCTYPE r [<!ENTITY who "eve@mutual.example">]>' + content.replace(b"ada@mutual.example", b"&who;")


def _file_entity() -> bytes:
    content = etree.tostring(THEM.signed(SAID))
    return b'<!DOCTYPE r [<!ENTITY f SYSTEM "file:///etc/hostname">]>' + content.replace(b"Claims", b"&f;")


def _instruction() -> bytes:
    return etree.tostring(THEM.signed(SAID)).replace(b"ada@", b"ada<?x y?>@")


def _without_signature() -> etree._Element:
    return THEM.response(SAID, THEM.assertion(SAID))


def _empty_signature() -> etree._Element:
    response = THEM.response(SAID, THEM.assertion(SAID))
    etree.SubElement(assertion_in(response), f"{DS}Signature")
    return response


def _two_assertions() -> etree._Element:
    return THEM.response(SAID, THEM.sign(THEM.assertion(SAID)), THEM.sign(THEM.assertion(SAID)))


def _good_outside_bad_inside() -> etree._Element:
    """The response is signed rightly, its assertion by a stranger."""
    return THEM.sign(THEM.response(SAID, STRANGER.sign(THEM.assertion(SAID))))


def _bad_outside_good_inside() -> etree._Element:
    """The assertion is signed rightly, the response by a stranger."""
    return STRANGER.sign(THEM.signed(SAID))


def _empty_reference() -> etree._Element:
    """The signature is over the whole document, not over an element by its ID."""
    response = THEM.signed(SAID)
    reference = next(response.iter(f"{DS}Reference"))
    reference.set("URI", "")
    return response


def _more_transforms() -> etree._Element:
    response = THEM.signed(SAID)
    transforms = next(response.iter(f"{DS}Transforms"))
    etree.SubElement(transforms, f"{DS}Transform", {"Algorithm": "http://www.w3.org/TR/1999/REC-xpath-19991116"})
    return response


def _hmac() -> etree._Element:
    """Signed with the public certificate as if it were a shared secret."""
    response = THEM.signed(SAID)
    method = next(response.iter(f"{DS}SignatureMethod"))
    method.set("Algorithm", "http://www.w3.org/2001/04/xmldsig-more#hmac-sha256")
    return response


def _encrypted(**options: Any) -> Callable[[], etree._Element]:
    def make() -> etree._Element:
        hidden = encrypt(THEM.sign(THEM.assertion(SAID)), OUR_KEY.certificate_pem, **options)
        return THEM.response(SAID, hidden)

    return make


def _encrypted_unsigned() -> etree._Element:
    """Anybody can encrypt for us: our key is public."""
    return THEM.response(SAID, encrypt(THEM.assertion(SAID), OUR_KEY.certificate_pem))


def _encrypted_for_another() -> etree._Element:
    return THEM.response(SAID, encrypt(THEM.sign(THEM.assertion(SAID)), STRANGER.own.certificate_pem))


def _sha1() -> etree._Element:
    weak = THEM.sign(THEM.assertion(SAID), method=SignatureMethod.RSA_SHA1, digest=DigestAlgorithm.SHA1, lax=True)
    return THEM.response(SAID, weak)


def _inclusive() -> etree._Element:
    way = CanonicalizationMethod.CANONICAL_XML_1_0_WITH_COMMENTS
    return THEM.response(SAID, THEM.sign(THEM.assertion(SAID), c14n=way))


def _said(**changes: Any) -> Callable[[], etree._Element]:
    return lambda: THEM.signed(SAID, **changes)


def _request_of_another_name() -> etree._Element:
    return THEM.signed(SAID, in_response_to="_not-a-request-of-ours")


TAMPERED: dict[str, Callable[[], etree._Element | bytes]] = {
    "XSW1": _xsw1,
    "XSW2": _xsw2,
    "XSW3": _xsw3,
    "XSW4": _xsw4,
    "XSW5": _xsw5,
    "XSW6": _xsw6,
    "XSW7": _xsw7,
    "XSW8": _xsw8,
    "another subject": _changed(f".//{{{A}}}NameID", "eve@mutual.example"),
    "another group": _changed(f".//{{{A}}}AttributeValue", "Admins"),
    "another signature value": _changed(f".//{DS}SignatureValue", base64.b64encode(bytes(384)).decode()),
    "another digest": _changed(f".//{DS}DigestValue", base64.b64encode(bytes(32)).decode()),
    "a comment in the subject": _comment,
    "an entity": _entity,
    "an entity that reads a file": _file_entity,
    "an instruction": _instruction,
    "unsigned": _without_signature,
    "an empty signature": _empty_signature,
    "two assertions": _two_assertions,
    "a stranger's key": lambda: STRANGER.signed(SAID),
    "a stranger's assertion in a good response": _good_outside_bad_inside,
    "a good assertion in a stranger's response": _bad_outside_good_inside,
    "a signature over the document": _empty_reference,
    "one more transform": _more_transforms,
    "a shared secret": _hmac,
    "SHA-1": _sha1,
    "canonical with comments": _inclusive,
    "encrypted and unsigned": _encrypted_unsigned,
    "encrypted for another": _encrypted_for_another,
    "encrypted and altered": _encrypted(spoil=True),
    "encrypted with CBC": _encrypted(cipher="http://www.w3.org/2001/04/xmlenc#aes256-cbc"),
    "encrypted with PKCS #1 1.5": _encrypted(wrapping="http://www.w3.org/2001/04/xmlenc#rsa-1_5"),
    "another audience": _said(audience="https://somebody.example"),
    "no audience": _said(audience=None),
    "another recipient": _said(recipient="https://somebody.example/answer"),
    "no recipient": _said(recipient=None),
    "another destination": _said(destination="https://somebody.example/answer"),
    "another provider": _said(issuer="https://other.example"),
    "expired": _said(ends=-2 * MINUTE),
    "confirmed too long ago": _said(confirmed_until=-2 * MINUTE),
    "confirmed for ever": _said(confirmed_until=None),
    "not yet": _said(begins=5 * MINUTE),
    "old": _said(issued=-20 * MINUTE),
    "from the future": _said(issued=5 * MINUTE),
    "the session has ended": _said(session_ends=-5 * MINUTE),
    "nobody authenticated": _said(has_statement=False),
    "not for the bearer": _said(method="urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"),
    "a failure": _said(status="urn:oasis:names:tc:SAML:2.0:status:Responder"),
    "version 1.1": _said(version="1.1"),
    "an unknown condition": _said(condition="Weather"),
    "the subject answers another request": _said(subject_in_response_to=request_name(new_uuid())),
    "the subject answers nothing": _said(subject_in_response_to=None),
    "a request that isn't ours": _request_of_another_name,
    "nobody asked": lambda: THEM.signed(UNASKED),
    "no response": lambda: THEM.sign(THEM.assertion(SAID)),
    "no XML": lambda: b"SAMLResponse",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("make", TAMPERED.values(), ids=TAMPERED.keys())
def test_what_was_tampered_with_is_refused(make: Callable[[], etree._Element | bytes]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        read(make())
    assert caught.value.code == "PROVIDER_ANSWER_REFUSED"


def test_what_is_not_base64_is_refused() -> None:
    with pytest.raises(Unauthenticated):
        client().read_answer("<Response/>", datetime.now(UTC))


def test_our_requests_are_signed() -> None:
    url = urlsplit(client().request_url(REQUEST, datetime.now(UTC)))
    query = {name: values[0] for name, values in parse_qs(url.query).items()}
    signed = "&".join(f"{name}={quote(query[name], safe='')}" for name in ("SAMLRequest", "SigAlg"))
    public = load_pem_x509_certificate(OUR_KEY.certificate_pem.encode()).public_key()
    assert isinstance(public, rsa.RSAPublicKey)
    public.verify(base64.b64decode(query["Signature"]), signed.encode(), padding.PKCS1v15(), hashes.SHA256())
    request = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"]), -15))
    assert request.get("ID") == request_name(REQUEST)
    assert (request.get("Destination"), request.get("AssertionConsumerServiceURL")) == (SIGN_IN, HERE)
    assert request.findtext(f"{{{A}}}Issuer") == US


def test_metadata_out_and_in() -> None:
    ours = etree.fromstring(client().metadata())
    assert ours.get("entityID") == US
    keys = [one.text for one in ours.iter(f"{DS}X509Certificate")]
    assert len(keys) == 2 and len(set(keys)) == 1
    assert read_metadata(THEM.metadata.encode()) == (ENTITY, SIGN_IN, (THEM.own.certificate_pem,))


@pytest.mark.parametrize(
    "content",
    [b"", b"<a/>", b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", THEM.metadata.replace("use=", "x=").encode()[:-9]],
)
def test_metadata_that_cannot_be_used(content: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        read_metadata(content)
    assert caught.value.code == "METADATA_IS_INVALID"

"""XML that strangers send: read without surprises, and believed only as far as it is signed.

Nothing but elements, attributes and text is taken: no document types (so no entities), comments, processing
instructions or CDATA, which are what parsers disagree about. A signature (XML Signature 1.1) counts only when it is an
element's own: its child, over that very element by its ID, under a key that was given, with algorithms that are listed.
What it covers is read again from the bytes that were verified; nothing else of the document is looked at.
Encrypted elements (XML Encryption 1.1) are opened with authenticated ciphers alone.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from strongroom.people.single_sign_on.claims import refused

DS: Final = "{http://www.w3.org/2000/09/xmldsig#}"
XENC: Final = "{http://www.w3.org/2001/04/xmlenc#}"
MAX_BYTES: Final = 256 * 1024
MAX_ELEMENTS: Final = 5_000
_EXCLUSIVE: Final = "http://www.w3.org/2001/10/xml-exc-c14n#"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_SIGNATURES: Final = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
_DIGESTS: Final = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_MIN_RSA_BITS: Final = 2048
_CIPHERS: Final = {
    "http://www.w3.org/2009/xmlenc11#aes128-gcm": 16,
    "http://www.w3.org/2009/xmlenc11#aes192-gcm": 24,
    "http://www.w3.org/2009/xmlenc11#aes256-gcm": 32,
}
"""Ciphers that notice when they are tampered with, and their key's bytes. CBC tells whoever may ask what is inside."""
_OAEP: Final = frozenset(
    {"http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p", "http://www.w3.org/2009/xmlenc11#rsa-oaep"}
)
_OAEP_HASHES: Final = {
    "http://www.w3.org/2000/09/xmldsig#sha1": hashes.SHA1,
    "http://www.w3.org/2001/04/xmlenc#sha256": hashes.SHA256,
}
_OAEP_MASKS: Final = {
    "http://www.w3.org/2009/xmlenc11#mgf1sha1": hashes.SHA1,
    "http://www.w3.org/2009/xmlenc11#mgf1sha256": hashes.SHA256,
}
_NONCE: Final = 12
_DECLARATION: Final = re.compile(r"\s*<\?xml[^?<>]*\?>")
_FORBIDDEN: Final = re.compile(r"<[!?]")


def read_xml(content: bytes) -> etree._Element:
    """The root of a document. Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`)."""
    if len(content) > MAX_BYTES:
        raise refused("it is too long")
    try:
        text = content.decode("utf-8")
        body = _DECLARATION.sub("", text, count=1)
        if _FORBIDDEN.search(body):
            raise refused("it holds a document type, a comment or an instruction")
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
        )
        root = etree.fromstring(body.encode(), parser)
    except (UnicodeDecodeError, etree.XMLSyntaxError, ValueError):
        raise refused("it is no XML that can be read") from None
    ids = [value for element in root.iter() for name, value in element.items() if name in {"ID", "Id", "id"}]
    if len(set(ids)) != len(ids):
        raise refused("an ID stands there twice")
    if sum(1 for _ in root.iter()) > MAX_ELEMENTS:
        raise refused("it has too many parts")
    return root


def decode_base64(text: str) -> bytes:
    """Base64 with white space anywhere (RFC 2045). Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`)."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise refused("it is not base64") from None


def is_signed(element: etree._Element) -> bool:
    """Whether an element has a signature of its own, right or wrong."""
    return element.find(f"{DS}Signature") is not None


def read_signed(element: etree._Element, certificates: Sequence[x509.Certificate]) -> etree._Element:
    """What an element's own signature covers: that element, as it was when one of these certificates' keys signed it.

    Raises errors.Unauthenticated (`PROVIDER_ANSWER_REFUSED`).
    """
    _check_shape(element)
    alone = read_xml(etree.tostring(element))
    for certificate in certificates:
        config = SignatureConfiguration(
            require_x509=True,
            location="./",
            expect_references=1,
            signature_methods=_SIGNATURES,
            digest_algorithms=_DIGESTS,
            ignore_ambiguous_key_info=True,
            verification_time=_within(certificate),
        )
        try:
            result = XMLVerifier().verify(alone, x509_cert=certificate, id_attribute="ID", expect_config=config)
        except (SignXMLException, ValueError, TypeError, etree.LxmlError):
            continue
        if not isinstance(result, VerifyResult):
            continue
        covered = read_xml(result.signed_data)
        if covered.tag == element.tag and covered.get("ID") == element.get("ID"):
            return covered
    raise refused("its signature is not the provider's")


def open_encrypted(parent: etree._Element, key: rsa.RSAPrivateKey) -> etree._Element:
    """The element inside an `EncryptedAssertion` (or the like). Raises errors.Unauthenticated."""
    data = parent.findall(f"{XENC}EncryptedData")
    keys = [*parent.iter(f"{XENC}EncryptedKey")]
    if len(data) != 1 or len(keys) != 1:
        raise refused("it isn't encrypted just once, for us")
    length = _CIPHERS.get(_algorithm(data[0]))
    if length is None:
        raise refused("it is encrypted with a cipher that doesn't count; AES-GCM does")
    content_key = _open_key(keys[0], key)
    content = _cipher_value(data[0])
    if len(content_key) != length or len(content) <= _NONCE:
        raise refused("it can't be decrypted")
    try:
        return read_xml(AESGCM(content_key).decrypt(content[:_NONCE], content[_NONCE:], None))
    except InvalidTag:
        raise refused("it can't be decrypted") from None


def read_certificate(text: str) -> x509.Certificate:
    """A certificate, PEM or bare base64. Raises ValueError, also for an RSA key of less than 2048 bits."""
    lines = [line for line in text.split("\n") if "-----" not in line]
    certificate = x509.load_der_x509_certificate(base64.b64decode("".join("".join(lines).split()), validate=True))
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < _MIN_RSA_BITS:
        raise ValueError("a key of fewer than 2048 bits")
    return certificate


def _check_shape(element: etree._Element) -> None:
    """One signature, of the element itself and of nothing else, with nothing hidden in it."""
    signatures = element.findall(f"{DS}Signature")
    name = element.get("ID")
    if len(signatures) != 1 or not name:
        raise refused("it isn't signed just once")
    signature = signatures[0]
    if signature.find(f"{DS}Object") is not None:
        raise refused("its signature holds more than a signature")
    info = signature.find(f"{DS}SignedInfo")
    references = [] if info is None else info.findall(f"{DS}Reference")
    if info is None or len(references) != 1 or references[0].get("URI") != f"#{name}":
        raise refused("its signature is of something else")
    methods = info.findall(f"{DS}CanonicalizationMethod")
    transforms = [one.get("Algorithm") for one in references[0].findall(f"{DS}Transforms/{DS}Transform")]
    if [one.get("Algorithm") for one in methods] != [_EXCLUSIVE] or transforms != [_ENVELOPED, _EXCLUSIVE]:
        raise refused("its signature changes what it signs in ways that don't count")


def _within(certificate: x509.Certificate) -> datetime:
    """An instant at which a certificate counts: metadata says which keys are good, not their dates."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin + (end - begin) / 2 if begin < end else datetime.now(UTC)


def _open_key(encrypted: etree._Element, key: rsa.RSAPrivateKey) -> bytes:
    method = encrypted.find(f"{XENC}EncryptionMethod")
    if method is None or method.get("Algorithm") not in _OAEP:
        raise refused("its key is encrypted in a way that doesn't count; RSA-OAEP does")
    digest, mask = method.find(f"{DS}DigestMethod"), method.find("{http://www.w3.org/2009/xmlenc11#}MGF")
    hashed = _OAEP_HASHES.get("" if digest is None else digest.get("Algorithm", ""), hashes.SHA1)
    masked = _OAEP_MASKS.get("" if mask is None else mask.get("Algorithm", ""), hashes.SHA1)
    oaep = padding.OAEP(mgf=padding.MGF1(masked()), algorithm=hashed(), label=None)
    try:
        return key.decrypt(_cipher_value(encrypted), oaep)
    except ValueError:
        raise refused("it can't be decrypted") from None


def _algorithm(element: etree._Element) -> str:
    method = element.find(f"{XENC}EncryptionMethod")
    return "" if method is None else method.get("Algorithm", "")


def _cipher_value(element: etree._Element) -> bytes:
    return decode_base64(element.findtext(f"{XENC}CipherData/{XENC}CipherValue") or "")

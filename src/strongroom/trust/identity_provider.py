"""A SAML identity provider of the checks' own, and browsers that come back from it."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import msgspec
from lxml import etree
from signxml.algorithms import CanonicalizationMethod
from signxml.signer import XMLSigner

from strongroom.kernel.ids import AccountId, new_uuid
from strongroom.people.enforcement import domain_hash
from strongroom.people.single_sign_on.domains import SealedDomain
from strongroom.people.single_sign_on.flow import PATH
from strongroom.people.single_sign_on.own_keys import OwnKey, new_rsa_key
from strongroom.trust.stage import PROVER
from strongroom.trust.visitor import Visitor
from strongroom.trust.workbench import Workbench

ROUTE: Final = "/v1/account/single-sign-on"
ROLE: Final = "account-tenant-read"
"""What people of the provider's group have in the account."""
_ENTITY: Final = "https://prove.example/metadata"
_HOME: Final = "/portal/account"
_GROUP: Final = "Provers"
_SAML: Final = "urn:oasis:names:tc:SAML:2.0"


@dataclass(frozen=True, kw_only=True)
class Said:
    """What an assertion says: `address` signs in, `lasts` beginning now."""

    audience: str
    recipient: str
    request: str
    address: str
    now: datetime
    lasts: timedelta = timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class IdentityProvider:
    """Signs assertions (SAML 2.0 core, section 2.3) under a key of its own."""

    own: OwnKey = field(default_factory=new_rsa_key, repr=False)

    @property
    def settings(self) -> Mapping[str, Any]:
        """How an account sets single sign-on up with it."""
        return {
            "kind": "SAML",
            "name": "prove",
            "enabled": True,
            "createsUsers": True,
            "groupRoles": [{"group": _GROUP, "roles": [ROLE]}],
            "saml": {
                "entityId": _ENTITY,
                "signInUrl": "https://prove.example/sign-in",
                "certificates": [self.own.certificate_pem],
                "groupsAttribute": "groups",
            },
        }

    def assertion(self, said: Said, *, is_signed: bool = True) -> bytes:
        """One that says this about somebody of its group."""
        ends = f"{said.now + said.lasts:%Y-%m-%dT%H:%M:%SZ}"
        name = "_" + new_uuid().hex
        content = (
            f'<saml:Assertion xmlns:saml="{_SAML}:assertion" ID="{name}" Version="2.0" '
            f'IssueInstant="{said.now:%Y-%m-%dT%H:%M:%SZ}"><saml:Issuer>{_ENTITY}</saml:Issuer><saml:Subject>'
            f'<saml:NameID>{said.address}</saml:NameID><saml:SubjectConfirmation Method="{_SAML}:cm:bearer">'
            f'<saml:SubjectConfirmationData Recipient="{said.recipient}" InResponseTo="{said.request}" '
            f'NotOnOrAfter="{ends}"/></saml:SubjectConfirmation></saml:Subject><saml:Conditions NotOnOrAfter="{ends}">'
            f"<saml:AudienceRestriction><saml:Audience>{said.audience}</saml:Audience></saml:AudienceRestriction>"
            f'</saml:Conditions><saml:AuthnStatement AuthnInstant="{said.now:%Y-%m-%dT%H:%M:%SZ}"/>'
            f'<saml:AttributeStatement><saml:Attribute Name="groups"><saml:AttributeValue>{_GROUP}'
            "</saml:AttributeValue></saml:Attribute></saml:AttributeStatement></saml:Assertion>"
        )
        if not is_signed:
            return content.encode()
        way = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0
        signed = XMLSigner(c14n_algorithm=way).sign(
            etree.fromstring(content), key=self.own.private_pem.encode(), cert=self.own.certificate_pem
        )
        return etree.tostring(signed)


@cache
def identity_provider() -> IdentityProvider:
    """The checks' own; made once, since keys take their time."""
    return IdentityProvider()


class Arrival(Visitor):
    """Somebody who signs in through the provider."""

    def __init__(self, bench: Workbench, account: AccountId) -> None:
        super().__init__(bench)
        self._path = f"{PATH}/{account}"

    async def leave(self) -> str:
        """Begin; the name of the request that the provider gets."""
        answer = await self.send("GET", self._path)
        packed = parse_qs(urlsplit(answer.headers.get("location", "")).query).get("SAMLRequest", [""])[0]
        if not packed:
            return ""
        request = etree.fromstring(zlib.decompress(base64.b64decode(packed), -15))
        return request.get("ID", "")

    async def arrive(self, request: str, *inside: bytes) -> bool:
        """Come back with a response around this; whether that signs them in."""
        now = f"{self.bench.clock.now():%Y-%m-%dT%H:%M:%SZ}"
        response = (
            f'<samlp:Response xmlns:samlp="{_SAML}:protocol" ID="_{new_uuid().hex}" Version="2.0" '
            f'IssueInstant="{now}" InResponseTo="{request}"><samlp:Status><samlp:StatusCode '
            f'Value="{_SAML}:status:Success"/></samlp:Status>{b"".join(inside).decode()}</samlp:Response>'
        )
        form = {"SAMLResponse": base64.b64encode(response.encode()).decode()}
        answer = await self.send("POST", f"{self._path}/answer", form, site="cross-site")
        if answer.status == 303:
            await self.send("GET", answer.headers["location"])
        return await self.is_in()

    async def is_in(self) -> bool:
        """Whether the account's page opens."""
        return (await self.send("GET", _HOME)).status == 200


async def verify_domain(bench: Workbench, account: AccountId, domain: str) -> UUID:
    """A domain that nobody can have, verified without the DNS, for the stage alone; its id."""
    domain_id = new_uuid()
    async with bench.databases.operation(PROVER, account=account) as op:
        content = msgspec.msgpack.encode(SealedDomain(name=domain, token=""))
        await op.run(
            "insert into email_domains (account_id, domain_id, domain_hash, state, sealed, created_at, verified_at) "
            "values (%s, %s, %s, 'VERIFIED', %s, %s, %s)",
            account,
            domain_id,
            domain_hash(op, domain),
            op.cipher.seal("email_domains", "sealed", domain_id.bytes, content),
            op.now,
            op.now,
        )
    return domain_id

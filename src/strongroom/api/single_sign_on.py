"""Single sign-on: an account's own provider and mail domains, set up by the account itself.

No answer holds a secret: of the client's secret it is told whether there is one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.access import ACCOUNT_ROLES, TENANT_ROLES, Permission
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, CallHandler, OperationHandler, Reply, Route
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, NotFound
from strongroom.kernel.ids import PersonId, parse_uuid
from strongroom.people import FrontDoor
from strongroom.people.single_sign_on.domains import Domain, add_domain, list_domains, remove_domain, verify_domain
from strongroom.people.single_sign_on.flow import addresses_of
from strongroom.people.single_sign_on.providers import (
    MAX_MAPPINGS,
    MAX_TEXT,
    ClientAuthentication,
    Kind,
    OidcSettings,
    Provider,
    RoleMapping,
    SamlSettings,
    delete_provider,
    get_provider,
    put_provider,
    require_single_sign_on,
)
from strongroom.people.single_sign_on.saml import MAX_CERTIFICATES, as_pem, read_metadata
from strongroom.people.single_sign_on.testing import check_provider

MAX_DOMAIN: Final = 253
MAX_METADATA: Final = 256 * 1024
MAX_CERTIFICATE: Final = 10_000
_MAX_SCOPES: Final = 20


class GroupRolesBody(msgspec.Struct, rename="camel"):
    """Who is in the group has the roles: in a tenant if one is named, else in the account itself."""

    group: str
    roles: list[str]
    tenant_id: str | None = None


class OidcBody(msgspec.Struct, rename="camel"):
    """An OpenID provider. `clientAuthentication` is `client_secret_basic` or `private_key_jwt`."""

    issuer: str
    client_id: str
    client_authentication: str
    has_client_secret: bool
    groups_claim: str
    scopes: list[str]


class SamlBody(msgspec.Struct, rename="camel"):
    """A SAML identity provider. An attribute that is null: the subject's NameID (or, for name and groups, nothing)."""

    entity_id: str
    sign_in_url: str
    certificates: list[str]
    address_attribute: str | None
    name_attribute: str | None
    groups_attribute: str | None
    allows_idp_initiated: bool


class AddressesBody(msgspec.Struct, rename="camel"):
    """What the provider has to be told of us."""

    sign_in: str
    callback: str
    answer: str
    metadata: str
    keys: str
    back_channel_logout: str
    front_channel_logout: str


class SingleSignOnBody(msgspec.Struct, rename="camel"):
    """An account's single sign-on; one of `oidc` and `saml` is there, as `kind` says."""

    kind: str
    name: str
    enabled: bool
    enforced: bool
    creates_users: bool
    break_glass_user_id: str | None
    default_roles: list[str]
    group_roles: list[GroupRolesBody]
    oidc: OidcBody | None
    saml: SamlBody | None
    addresses: AddressesBody
    last_updated: datetime | None


class OidcRequest(msgspec.Struct, rename="camel"):
    """An OpenID provider. Without `clientSecret`, the one that is kept stays, for the same issuer and client."""

    issuer: str
    client_id: str
    client_secret: str | None = None
    client_authentication: str = "client_secret_basic"
    groups_claim: str = "groups"
    scopes: list[str] = msgspec.field(default_factory=lambda: ["openid", "email", "profile"])


class SamlRequest(msgspec.Struct, rename="camel"):
    """A SAML identity provider: its `metadata` (XML), or `entityId`, `signInUrl` and `certificates`."""

    metadata: str | None = None
    entity_id: str | None = None
    sign_in_url: str | None = None
    certificates: list[str] | None = None
    address_attribute: str | None = None
    name_attribute: str | None = None
    groups_attribute: str | None = None
    allows_idp_initiated: bool = False


class SingleSignOnRequest(msgspec.Struct, rename="camel"):
    """What an account's single sign-on is to be: the whole of it."""

    kind: str
    name: str
    enabled: bool = False
    enforced: bool = False
    creates_users: bool = False
    break_glass_user_id: str | None = None
    default_roles: list[str] = msgspec.field(default_factory=list)
    group_roles: list[GroupRolesBody] = msgspec.field(default_factory=list)
    oidc: OidcRequest | None = None
    saml: SamlRequest | None = None


class StepBody(msgspec.Struct, rename="camel"):
    """One step of a test, and what came of it."""

    step: str
    succeeded: bool
    message: str


class SingleSignOnTestBody(msgspec.Struct, rename="camel"):
    """What a test found out without anybody signing in. `signInTest`: where an administrator goes on in a browser."""

    succeeded: bool
    steps: list[StepBody]
    sign_in_test: str


class DomainBody(msgspec.Struct, rename="camel"):
    """A mail domain, `status` PENDING or VERIFIED: once the DNS has a TXT record of this name and value."""

    domain_id: str
    domain: str
    status: str
    record_name: str
    record_value: str
    created_on: datetime
    verified_on: datetime | None


class DomainsBody(msgspec.Struct, rename="camel"):
    """An account's mail domains, the oldest first."""

    domains: list[DomainBody]


class DomainRequest(msgspec.Struct, rename="camel"):
    """The domain to claim: what stands behind the @."""

    domain: str


async def _get(op: Operation, call: Call) -> Reply:
    require_single_sign_on(op)
    return Reply(200, _body(call, await get_provider(op)))


async def _put(op: Operation, call: Call) -> Reply:
    wanted, door = _read(call.body), _door(call)
    return Reply(200, _body(call, await put_provider(op, door.databases, door.outside, wanted)))


async def _delete(op: Operation, call: Call) -> Reply:
    await delete_provider(op, _door(call).databases)
    return Reply(204)


async def _test(call: Call) -> Reply:
    async def find(op: Operation) -> Provider:
        require_single_sign_on(op)
        return await get_provider(op)

    account = call.actor.account_id
    assert account is not None  # noqa: S101  the route is of accounts
    steps = await check_provider(_door(call), account, await call.run(find))
    body = SingleSignOnTestBody(
        succeeded=all(step.succeeded for step in steps),
        steps=[StepBody(step=step.name, succeeded=step.succeeded, message=step.message) for step in steps],
        sign_in_test=f"{_door(call).origin}/portal/account/single-sign-on",
    )
    return Reply(200, body)


async def _list_domains(op: Operation, _: Call) -> Reply:
    require_single_sign_on(op)
    return Reply(200, DomainsBody([_domain_body(domain) for domain in await list_domains(op)]))


async def _add_domain(op: Operation, call: Call) -> Reply:
    found = Collector()
    name = found.text(read_object(call.body), "domain", "DOMAIN", max_length=MAX_DOMAIN)
    found.check()
    return Reply(201, _domain_body(await add_domain(op, _door(call).databases, name)))


async def _verify_domain(call: Call) -> Reply:
    account = call.actor.account_id
    assert account is not None  # noqa: S101  the route is of accounts
    return Reply(200, _domain_body(await verify_domain(_door(call), call.actor, account, _domain_id(call))))


async def _remove_domain(op: Operation, call: Call) -> Reply:
    await remove_domain(op, _door(call), _domain_id(call))
    return Reply(204)


def _read(body: bytes) -> Provider:
    source, found = read_object(body), Collector()
    kind = found.choice(source, "kind", "KIND", [one.value for one in Kind])
    name = found.text(source, "name", "NAME", max_length=100)
    flags = {
        field: bool(found.flag(source, field, code))
        for field, code in (("enabled", "ENABLED"), ("enforced", "ENFORCED"), ("createsUsers", "CREATES_USERS"))
    }
    break_glass = found.uuid(source, "breakGlassUserId", "BREAK_GLASS_USER_ID", required=False)
    default_roles = (
        found.choices(source, "defaultRoles", "DEFAULT_ROLES", ACCOUNT_ROLES) if source.get("defaultRoles") else ()
    )
    mappings = _read_mappings(found, source)
    oidc = saml = None
    if kind == Kind.OIDC:
        oidc = found.object(source, "oidc", "OIDC", lambda given: _read_oidc(found, given))
        if source.get("oidc") is None:
            found.required("oidc", "OIDC")
    elif kind == Kind.SAML:
        saml = found.object(source, "saml", "SAML", lambda given: _read_saml(found, given))
        if source.get("saml") is None:
            found.required("saml", "SAML")
    found.check()
    return Provider(
        name=name,
        oidc=oidc,
        saml=saml,
        is_enabled=flags["enabled"],
        is_enforced=flags["enforced"],
        makes_persons=flags["createsUsers"],
        break_glass=None if break_glass is None else PersonId(break_glass),
        mappings=tuple(mappings),
        default_roles=default_roles,
    )


def _read_mappings(found: Collector, source: Object) -> Sequence[RoleMapping]:
    given = source.get("groupRoles")
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        found.add("GROUP_ROLES_IS_INVALID", "{field} must be a list of objects.", field="groupRoles")
        return []
    if len(given) > MAX_MAPPINGS:
        found.add("GROUP_ROLES_LIMIT_REACHED", "There are {limit} mappings at most.", limit=MAX_MAPPINGS)
        return []
    return [_read_mapping(found, item) for item in given]


def _read_mapping(found: Collector, source: Object) -> RoleMapping:
    group = found.text(source, "group", "GROUP", max_length=MAX_TEXT)
    tenant = found.uuid(source, "tenantId", "TENANT_ID", required=False)
    roles = found.choices(source, "roles", "ROLES", ACCOUNT_ROLES if tenant is None else TENANT_ROLES)
    return RoleMapping(group=group, roles=roles, tenant_id=tenant)


def _read_oidc(found: Collector, source: Object) -> OidcSettings:
    issuer = found.text(source, "issuer", "ISSUER", max_length=MAX_TEXT)
    client_id = found.text(source, "clientId", "CLIENT_ID", max_length=MAX_TEXT)
    secret = found.text(source, "clientSecret", "CLIENT_SECRET", max_length=MAX_TEXT, required=False)
    methods = [one.value for one in ClientAuthentication]
    method = found.choice(source, "clientAuthentication", "CLIENT_AUTHENTICATION", methods, required=False)
    claim = found.text(source, "groupsClaim", "GROUPS_CLAIM", max_length=200, required=False)
    scopes = _read_texts(found, source, "scopes", "SCOPES", most=_MAX_SCOPES, max_length=200)
    return OidcSettings(
        issuer=issuer,
        client_id=client_id,
        client_secret=secret,
        authentication=ClientAuthentication(method or ClientAuthentication.SECRET),
        groups_claim=claim or "groups",
        scopes=scopes or ("openid", "email", "profile"),
    )


def _read_saml(found: Collector, source: Object) -> SamlSettings:
    metadata = source.get("metadata")
    if metadata is not None and not (isinstance(metadata, str) and len(metadata) <= MAX_METADATA):
        found.add("METADATA_IS_INVALID", "{field} must be XML as a text.", field="metadata")
        metadata = None
    if metadata:
        entity_id, url, certificates = read_metadata(metadata.strip().encode())
    else:
        entity_id = found.text(source, "entityId", "ENTITY_ID", max_length=1024)
        url = found.text(source, "signInUrl", "SIGN_IN_URL", max_length=MAX_TEXT)
        given = source.get("certificates")
        if not isinstance(given, list) or not given or not all(isinstance(one, str) for one in given):
            found.required("certificates", "CERTIFICATES")
            given = []
        certificates = tuple(as_pem(one[:MAX_CERTIFICATE]) for one in given[:MAX_CERTIFICATES])
    return SamlSettings(
        entity_id=entity_id,
        sign_in_url=url,
        certificates=certificates,
        address_attribute=found.text(
            source, "addressAttribute", "ADDRESS_ATTRIBUTE", max_length=MAX_TEXT, required=False
        ),
        name_attribute=found.text(source, "nameAttribute", "NAME_ATTRIBUTE", max_length=MAX_TEXT, required=False),
        groups_attribute=found.text(source, "groupsAttribute", "GROUPS_ATTRIBUTE", max_length=MAX_TEXT, required=False),
        takes_unrequested=bool(found.flag(source, "allowsIdpInitiated", "ALLOWS_IDP_INITIATED")),
    )


def _read_texts(
    found: Collector, source: Object, field: str, code: str, *, most: int, max_length: int
) -> tuple[str, ...]:
    given = source.get(field)
    if given is None:
        return ()
    if not isinstance(given, list) or len(given) > most or not all(isinstance(one, str) for one in given):
        found.add(f"{code}_IS_INVALID", "{field} must be a list of at most {limit} words.", field=field, limit=most)
        return ()
    return tuple(one[:max_length] for one in given)


def _body(call: Call, provider: Provider) -> SingleSignOnBody:
    account = call.actor.account_id
    assert account is not None  # noqa: S101  the route is of accounts
    oidc, saml = provider.oidc, provider.saml
    return SingleSignOnBody(
        kind=provider.kind.value,
        name=provider.name,
        enabled=provider.is_enabled,
        enforced=provider.is_enforced,
        creates_users=provider.makes_persons,
        break_glass_user_id=None if provider.break_glass is None else str(provider.break_glass),
        default_roles=list(provider.default_roles),
        group_roles=[
            GroupRolesBody(
                group=one.group,
                roles=list(one.roles),
                tenant_id=None if one.tenant_id is None else str(one.tenant_id),
            )
            for one in provider.mappings
        ],
        oidc=None
        if oidc is None
        else OidcBody(
            issuer=oidc.issuer,
            client_id=oidc.client_id,
            client_authentication=oidc.authentication.value,
            has_client_secret=bool(oidc.client_secret),
            groups_claim=oidc.groups_claim,
            scopes=list(oidc.scopes),
        ),
        saml=None
        if saml is None
        else SamlBody(
            entity_id=saml.entity_id,
            sign_in_url=saml.sign_in_url,
            certificates=list(saml.certificates),
            address_attribute=saml.address_attribute or None,
            name_attribute=saml.name_attribute or None,
            groups_attribute=saml.groups_attribute or None,
            allows_idp_initiated=saml.takes_unrequested,
        ),
        addresses=AddressesBody(**addresses_of(_door(call), account)),
        last_updated=provider.updated_at,
    )


def _domain_body(domain: Domain) -> DomainBody:
    return DomainBody(
        domain_id=str(domain.domain_id),
        domain=domain.name,
        status="VERIFIED" if domain.is_verified else "PENDING",
        record_name=domain.record_name,
        record_value=domain.record_value,
        created_on=domain.created_at,
        verified_on=domain.verified_at,
    )


def _domain_id(call: Call) -> UUID:
    found = parse_uuid(call.path["domainId"])
    if found is None:
        raise NotFound(Failure("DOMAIN_NOT_FOUND", "There is no such domain."))
    return found


def _door(call: Call) -> FrontDoor:
    door: FrontDoor = call.services.part(FrontDoor)
    return door


def _route(
    method: str,
    path: str,
    summary: str,
    handler: Callable[..., Awaitable[Reply]],
    replies: dict[int, Any],
    *,
    request: Any = None,
    asks_outside: bool = False,
) -> Route:
    operation: OperationHandler | None = None if asks_outside else handler
    call: CallHandler | None = handler if asks_outside else None
    return Route(
        method=method,
        path=f"/v1/account/single-sign-on{path}",
        summary=summary,
        tag="Single sign-on",
        access=Access.ACCOUNT,
        permission=Permission.ACCOUNT_MANAGE,
        operation=operation,
        call=call,
        request=request,
        replies=replies,
        errors=(503,) if asks_outside else (),
    )


_ONE: Final = "/domains/{domainId}"
ROUTES: Final[Sequence[Route]] = (
    _route("GET", "", "The account's single sign-on", _get, {200: SingleSignOnBody}),
    _route("PUT", "", "Set single sign-on up", _put, {200: SingleSignOnBody}, request=SingleSignOnRequest),
    _route("DELETE", "", "Take single sign-on away", _delete, {204: None}),
    _route("POST", "/test", "Ask the provider", _test, {200: SingleSignOnTestBody}, asks_outside=True),
    _route("GET", "/domains", "The account's mail domains", _list_domains, {200: DomainsBody}),
    _route("POST", "/domains", "Claim a mail domain", _add_domain, {201: DomainBody}, request=DomainRequest),
    _route(
        "POST", f"{_ONE}/verify", "Look for a domain's record", _verify_domain, {200: DomainBody}, asks_outside=True
    ),
    _route("DELETE", _ONE, "Give a mail domain up", _remove_domain, {204: None}),
)

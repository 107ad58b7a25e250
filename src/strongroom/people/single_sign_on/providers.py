"""The provider of an account: who vouches for its people, and what comes of it.

An account has one, OpenID Connect or SAML 2.0, which it sets up itself. Secrets (the client's secret, our own private
keys) are in the sealed part and never told again. Each change makes another version.
"""

from __future__ import annotations

import dataclasses
import enum
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Databases, Operation
from strongroom.kernel.errors import Failure, Invalid, NotFound, Refused
from strongroom.kernel.ids import PersonId, TenantId, new_uuid
from strongroom.people.credentials import list_credentials
from strongroom.people.enforcement import METHOD_PREFIX
from strongroom.people.grants import check_roles, check_tenant, roles_of
from strongroom.people.outside import Outside
from strongroom.people.persons import find_person_by_id
from strongroom.people.single_sign_on.domains import end_local_sessions, require_change
from strongroom.people.single_sign_on.own_keys import OwnKey, new_ec_key, new_rsa_key

MAX_MAPPINGS: Final = 200
MAX_TEXT: Final = 500
_CLAIM: Final = re.compile(r"[!-~]{1,200}")


class Kind(enum.StrEnum):
    """Which protocol a provider speaks."""

    OIDC = "OIDC"
    SAML = "SAML"


class ClientAuthentication(enum.StrEnum):
    """How we prove to an OpenID provider who we are (OpenID Connect Core 1.0 section 9)."""

    SECRET = "client_secret_basic"  # noqa: S105  the method's registered name
    KEY = "private_key_jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleMapping:
    """Who is in `group` at the provider has these roles, in the account itself or in one of its tenants."""

    group: str
    roles: tuple[str, ...]
    tenant_id: UUID | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """An OpenID provider. `client_secret` may be empty where the client proves itself with a key."""

    issuer: str
    client_id: str
    client_secret: str = field(default="", repr=False)
    authentication: ClientAuthentication = ClientAuthentication.SECRET
    groups_claim: str = "groups"
    scopes: tuple[str, ...] = ("openid", "email", "profile")


@dataclass(frozen=True, slots=True, kw_only=True)
class SamlSettings:
    """A SAML identity provider. `certificates` (PEM) are those that it signs under, any of them.

    An attribute's name is empty where the subject's NameID is meant. `takes_unrequested`: sign-ins that begin at the
    provider are taken.
    """

    entity_id: str
    sign_in_url: str
    certificates: tuple[str, ...]
    address_attribute: str = ""
    name_attribute: str = ""
    groups_attribute: str = "groups"
    takes_unrequested: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedProvider:
    """What is sealed of a provider."""

    name: str
    oidc: OidcSettings | None
    saml: SamlSettings | None
    mappings: tuple[RoleMapping, ...]
    default_roles: tuple[str, ...]
    own_key: OwnKey = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """An account's provider; just one of `oidc` and `saml` is there.

    `makes_persons`: people of the account's verified domains come in without an invitation. `is_enforced`: they come in
    no other way, but for `break_glass`.
    """

    name: str
    oidc: OidcSettings | None = None
    saml: SamlSettings | None = None
    is_enabled: bool = False
    is_enforced: bool = False
    makes_persons: bool = False
    break_glass: PersonId | None = None
    mappings: tuple[RoleMapping, ...] = ()
    default_roles: tuple[str, ...] = ()
    version_id: UUID | None = None
    updated_at: datetime | None = None
    own_key: OwnKey | None = field(default=None, repr=False)

    @property
    def kind(self) -> Kind:
        """Which protocol it speaks."""
        return Kind.OIDC if self.oidc is not None else Kind.SAML

    @property
    def issuer(self) -> str:
        """What the provider calls itself."""
        return self.oidc.issuer if self.oidc is not None else self.saml.entity_id if self.saml is not None else ""

    @property
    def key(self) -> OwnKey:
        """Our own key with this provider; a provider that was kept has one."""
        if self.own_key is None:
            raise LookupError("this provider wasn't kept")
        return self.own_key


def require_single_sign_on(op: Operation) -> None:
    """Raises errors.Forbidden (`FORBIDDEN`) unless the actor may see how the account signs people in."""
    require(op, Permission.ACCOUNT_MANAGE)


async def find_provider(op: Operation) -> Provider | None:
    """The account's provider, if it has one. For whoever signs in, too: asks for no permission."""
    row = await op.row(
        "select version_id, is_enabled, is_enforced, makes_persons, break_glass_id, sealed, updated_at "
        "from single_sign_ons where account_id = %s",
        op.account,
    )
    if row is None:
        return None
    sealed = _DECODER.decode(op.cipher.open("single_sign_ons", "sealed", op.account.bytes, row[5]))
    return Provider(
        name=sealed.name,
        oidc=sealed.oidc,
        saml=sealed.saml,
        is_enabled=row[1],
        is_enforced=row[2],
        makes_persons=row[3],
        break_glass=None if row[4] is None else PersonId(row[4]),
        mappings=sealed.mappings,
        default_roles=sealed.default_roles,
        version_id=row[0],
        updated_at=row[6],
        own_key=sealed.own_key,
    )


async def get_provider(op: Operation) -> Provider:
    """The account's provider. Raises errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`)."""
    provider = await find_provider(op)
    if provider is None:
        raise NotFound(Failure("SINGLE_SIGN_ON_NOT_FOUND", "This account has no single sign-on. Set it up first."))
    return provider


async def put_provider(op: Operation, databases: Databases, outside: Outside, wanted: Provider) -> Provider:
    """Set up the account's provider, or change it. An empty client secret leaves the one that is kept.

    Our own key with the provider is made once, and stays as long as the protocol does. Links between the provider's
    subjects and people end when the provider is another one, and sessions that came from it when it isn't believed any
    more as it was (see `_is_believed_still`). Where the provider is enforced now, sessions of those who may come in by
    it alone end.

    Raises as `domains.require_change` and `grants.check_roles`, errors.NotFound (`TENANT_NOT_FOUND`) and
    errors.Invalid, with all that is wrong in it.
    """
    await require_change(op, databases)
    before = await find_provider(op)
    wanted = _with_secret(wanted, before)
    await _check(op, databases, outside, wanted)
    stays = before is not None and before.kind is wanted.kind and before.own_key is not None
    own_key = before.key if before is not None and stays else _new_key(wanted.kind)
    kept = dataclasses.replace(wanted, version_id=new_uuid(), updated_at=op.now, own_key=own_key)
    sealed = SealedProvider(
        name=kept.name,
        oidc=kept.oidc,
        saml=kept.saml,
        mappings=kept.mappings,
        default_roles=kept.default_roles,
        own_key=own_key,
    )
    await op.run(
        "insert into single_sign_ons (account_id, version_id, kind, is_enabled, is_enforced, makes_persons, "
        "break_glass_id, sealed, updated_at) values (%s, %s, %s, %s, %s, %s, %s, %s, %s) "
        "on conflict (account_id) do update set version_id = excluded.version_id, kind = excluded.kind, "
        "is_enabled = excluded.is_enabled, is_enforced = excluded.is_enforced, "
        "makes_persons = excluded.makes_persons, break_glass_id = excluded.break_glass_id, "
        "sealed = excluded.sealed, updated_at = excluded.updated_at",
        op.account,
        kept.version_id,
        kept.kind.value,
        kept.is_enabled,
        kept.is_enforced,
        kept.makes_persons,
        kept.break_glass,
        op.cipher.seal("single_sign_ons", "sealed", op.account.bytes, msgspec.msgpack.encode(sealed)),
        op.now,
    )
    if before is not None and (before.kind, before.issuer) != (kept.kind, kept.issuer):
        await op.run("delete from provider_subjects where account_id = %s", op.account)
    if before is not None and not _is_believed_still(before, kept):
        await _end_its_sessions(op)
    await end_local_sessions(op)
    detail = f"{'none' if before is None else _told(before)} > {_told(kept)}"
    await record(op, "single-sign-on.change", "account", op.account, detail=detail)
    return kept


async def delete_provider(op: Operation, databases: Databases) -> None:
    """Take single sign-on away: nobody comes in by it any more, and sessions that came from it end.

    Raises as `domains.require_change`, and errors.NotFound (`SINGLE_SIGN_ON_NOT_FOUND`).
    """
    await require_change(op, databases)
    before = await get_provider(op)
    await op.run("delete from provider_subjects where account_id = %s", op.account)
    await op.run("delete from single_sign_ons where account_id = %s", op.account)
    await _end_its_sessions(op)
    await record(op, "single-sign-on.remove", "account", op.account, detail=f"{_told(before)} > none")


async def is_linked(op: Operation, persons: Collection[PersonId]) -> frozenset[PersonId]:
    """Those among these people whom the provider has vouched for."""
    rows = await op.rows("select person_id from provider_subjects where person_id = any(%s)", list(persons))
    return frozenset(PersonId(row[0]) for row in rows)


async def _check(op: Operation, databases: Databases, outside: Outside, wanted: Provider) -> None:
    failures: list[Failure] = []
    if wanted.oidc is not None:
        failures += _check_oidc(outside, wanted.oidc)
    if wanted.saml is not None:
        failures += _check_saml(wanted.saml)
    if len(wanted.mappings) > MAX_MAPPINGS:
        failures.append(
            Failure("GROUP_ROLES_LIMIT_REACHED", "There are {limit} mappings at most.", {"limit": MAX_MAPPINGS})
        )
    if wanted.default_roles:
        await check_roles(op, databases, None, wanted.default_roles)
    for mapping in wanted.mappings:
        tenant = None if mapping.tenant_id is None else TenantId(mapping.tenant_id)
        await check_tenant(databases, op, tenant)
        await check_roles(op, databases, tenant, mapping.roles)
    if wanted.is_enforced or wanted.break_glass is not None:
        failures += await _check_enforcement(op, wanted)
    if failures:
        raise Invalid(*failures)


def _check_oidc(outside: Outside, settings: OidcSettings) -> Sequence[Failure]:
    failures = []
    try:
        outside.destination(settings.issuer)
        if urlsplit(settings.issuer).query:
            raise Refused(Failure("PROVIDER_URL_IS_INVALID", "An issuer has no query."))
    except Refused as error:
        failures += list(error.failures)
    if settings.authentication is ClientAuthentication.SECRET and not settings.client_secret:
        failures.append(Failure("CLIENT_SECRET_IS_REQUIRED", "The provider gave you a client secret: send it."))
    if not _CLAIM.fullmatch(settings.groups_claim):
        failures.append(Failure("GROUPS_CLAIM_IS_INVALID", "groupsClaim is the name of a claim, such as groups."))
    if "openid" not in settings.scopes or not all(_CLAIM.fullmatch(scope) for scope in settings.scopes):
        failures.append(Failure("SCOPES_IS_INVALID", "scopes are words without blanks, one of them openid."))
    return failures


def _check_saml(settings: SamlSettings) -> Sequence[Failure]:
    if urlsplit(settings.sign_in_url).scheme != "https":
        return [Failure("SIGN_IN_URL_IS_INVALID", "signInUrl is the https address of the provider's sign-in page.")]
    return []


async def _check_enforcement(op: Operation, wanted: Provider) -> Sequence[Failure]:
    if wanted.break_glass is None:
        return [
            Failure(
                "BREAK_GLASS_USER_ID_IS_REQUIRED",
                "Name a person in breakGlassUserId who still signs in here when the provider is down.",
            )
        ]
    person = await find_person_by_id(op, wanted.break_glass)
    fits = (
        person is not None
        and "account-admin" in await roles_of(op, person.person_id, None)
        and {one.kind for one in await list_credentials(op, person.person_id)} & {"PASSWORD", "PASSKEY"}
    )
    if not fits:
        return [
            Failure(
                "BREAK_GLASS_USER_ID_IS_INVALID",
                "The person for emergencies is an account-admin of this account with a password or a passkey here.",
            )
        ]
    if wanted.is_enforced and not wanted.is_enabled:
        return [Failure("ENFORCED_NEEDS_ENABLED", "Only single sign-on that is enabled can be enforced.")]
    return []


def _is_believed_still(before: Provider, now: Provider) -> bool:
    """Whether sessions that came from the provider go on: it is enabled, the same one, and kept its certificates."""
    if not now.is_enabled or (before.kind, before.issuer) != (now.kind, now.issuer):
        return False
    if before.oidc is not None and now.oidc is not None:
        return before.oidc.client_id == now.oidc.client_id
    if before.saml is not None and now.saml is not None:
        return set(before.saml.certificates) <= set(now.saml.certificates)
    return False


async def _end_its_sessions(op: Operation) -> None:
    """End the sessions that came from the provider."""
    await op.run(
        "update sessions set ended_at = %s where method like %s and ended_at is null", op.now, f"{METHOD_PREFIX}%"
    )


def _with_secret(wanted: Provider, before: Provider | None) -> Provider:
    """A client secret stays with the client and the provider that it is for, and with no other."""
    if wanted.oidc is None or wanted.oidc.client_secret or before is None or before.oidc is None:
        return wanted
    if (wanted.oidc.issuer, wanted.oidc.client_id) != (before.oidc.issuer, before.oidc.client_id):
        return wanted
    return dataclasses.replace(wanted, oidc=dataclasses.replace(wanted.oidc, client_secret=before.oidc.client_secret))


def _new_key(kind: Kind) -> OwnKey:
    return new_ec_key() if kind is Kind.OIDC else new_rsa_key()


def _told(provider: Provider) -> str:
    """A provider in the record: without secrets, and nobody's name."""
    words = [provider.kind.value, provider.issuer[:100]]
    words += ["on" if provider.is_enabled else "off"]
    words += ["enforced"] if provider.is_enforced else []
    words += ["makes-persons"] if provider.makes_persons else []
    words += [f"break-glass={provider.break_glass}"] if provider.break_glass else []
    words += [f"default={'+'.join(provider.default_roles)}"] if provider.default_roles else []
    words += [f"{len(provider.mappings)} mappings"]
    return " ".join(words)


_DECODER: Final = msgspec.msgpack.Decoder(SealedProvider)

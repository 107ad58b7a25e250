"""The account portal's page of single sign-on: set the provider up, test it, verify domains."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from strongroom.access import Permission
from strongroom.api.problems import status_of
from strongroom.database import Operation
from strongroom.kernel.errors import Failure, Invalid, NotFound, StrongroomError
from strongroom.kernel.ids import parse_uuid
from strongroom.people.single_sign_on.domains import add_domain, list_domains, verify_domain
from strongroom.people.single_sign_on.flow import Purpose, addresses_of, begin
from strongroom.people.single_sign_on.providers import (
    OidcSettings,
    Provider,
    SamlSettings,
    find_provider,
    get_provider,
    put_provider,
    require_single_sign_on,
)
from strongroom.people.single_sign_on.saml import read_metadata
from strongroom.portals.single_sign_on import leave
from strongroom.portals.web import Answer, Entrance, Page, Visit, redirect

SETTINGS_PATH: Final = "/portal/account/single-sign-on"
MAX_NAME: Final = 100


async def _show(visit: Visit) -> Answer:
    return await _page(visit)


async def _page(visit: Visit, wrong: StrongroomError | None = None) -> Answer:
    session = visit.signed_in
    async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
        require_single_sign_on(op)
        provider, domains = await find_provider(op), await list_domains(op)
    return visit.render(
        "single_sign_on.html",
        status=200 if wrong is None else status_of(wrong),
        wrong="" if wrong is None else str(wrong),
        provider=provider,
        domains=domains,
        addresses=addresses_of(visit.door, session.account_id),
        form={name: visit.form.get(name, "") for name in ("name", "issuer", "client_id")},
    )


async def _set_up_oidc(visit: Visit) -> Answer:
    form = visit.form

    def change(before: Provider) -> Provider:
        settings = OidcSettings(
            issuer=form.get("issuer", "").strip(),
            client_id=form.get("client_id", "").strip(),
            client_secret=form.get("client_secret", ""),
        )
        if before.oidc is not None:
            settings = dataclasses.replace(settings, groups_claim=before.oidc.groups_claim, scopes=before.oidc.scopes)
        return dataclasses.replace(before, name=_name(visit), oidc=settings, saml=None)

    return await _change(visit, change)


async def _set_up_saml(visit: Visit) -> Answer:
    def change(before: Provider) -> Provider:
        entity_id, url, certificates = read_metadata(visit.form.get("metadata", "").strip().encode())
        kept = before.saml or SamlSettings(entity_id="", sign_in_url="", certificates=())
        settings = dataclasses.replace(kept, entity_id=entity_id, sign_in_url=url, certificates=certificates)
        return dataclasses.replace(before, name=_name(visit), oidc=None, saml=settings)

    return await _change(visit, change)


async def _switch(visit: Visit) -> Answer:
    def change(before: Provider) -> Provider:
        return dataclasses.replace(before, is_enabled=visit.form.get("enabled") == "yes")

    return await _change(visit, change, exists=True)


async def _change(visit: Visit, change: Callable[[Provider], Provider], *, exists: bool = False) -> Answer:
    door = visit.door

    async def act(op: Operation) -> None:
        before = await get_provider(op) if exists else await find_provider(op) or Provider(name="")
        await put_provider(op, door.databases, door.outside, change(before))

    return await _act(visit, act)


async def _claim(visit: Visit) -> Answer:
    async def act(op: Operation) -> None:
        await add_domain(op, visit.door.databases, visit.form.get("domain", ""))

    return await _act(visit, act)


async def _act(visit: Visit, act: Callable[[Operation], Awaitable[None]]) -> Answer:
    session = visit.signed_in
    try:
        async with visit.door.databases.operation(session.actor, account=session.account_id) as op:
            await act(op)
    except StrongroomError as error:
        return await _page(visit, error)
    return redirect(SETTINGS_PATH)


async def _verify(visit: Visit) -> Answer:
    session, domain_id = visit.signed_in, parse_uuid(visit.path["domainId"])
    if domain_id is None:
        raise NotFound(Failure("DOMAIN_NOT_FOUND", "There is no such domain."))
    try:
        await verify_domain(visit.door, session.actor, session.account_id, domain_id)
    except StrongroomError as error:
        return await _page(visit, error)
    return redirect(SETTINGS_PATH)


async def _test(visit: Visit) -> Answer:
    try:
        departure = await begin(visit.door, visit.signed_in.account_id, purpose=Purpose.TEST)
    except StrongroomError as error:
        return await _page(visit, error)
    return leave(visit, departure)


def _name(visit: Visit) -> str:
    name = visit.form.get("name", "").strip()
    if not name or len(name) > MAX_NAME or not name.isprintable():
        raise Invalid(
            Failure("NAME_LENGTH_OUT_OF_RANGE", "A name has 1 to {maxLength} characters.", {"maxLength": MAX_NAME})
        )
    return name


def _settings_page(method: str, path: str, handler: Callable[[Visit], Awaitable[Answer]], *, proven: bool) -> Page:
    return Page(
        method=method,
        path=SETTINGS_PATH + path,
        entrance=Entrance.SIGNED_IN,
        handler=handler,
        permission=Permission.ACCOUNT_MANAGE,
        proven=proven,
    )


PAGES: Final[Sequence[Page]] = (
    _settings_page("GET", "", _show, proven=False),
    _settings_page("POST", "/oidc", _set_up_oidc, proven=True),
    _settings_page("POST", "/saml", _set_up_saml, proven=True),
    _settings_page("POST", "/switch", _switch, proven=True),
    _settings_page("POST", "/test", _test, proven=False),
    _settings_page("POST", "/domains", _claim, proven=False),
    _settings_page("POST", "/domains/{domainId}/verify", _verify, proven=False),
)

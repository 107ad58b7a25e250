"""Testing a provider without anybody signing in: is it there, does it say who it is, can its signatures be checked?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from strongroom.kernel.actors import system
from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.ids import AccountId
from strongroom.people.front_door import FrontDoor
from strongroom.people.single_sign_on.domains import list_domains
from strongroom.people.single_sign_on.flow import client_of
from strongroom.people.single_sign_on.providers import Provider
from strongroom.people.single_sign_on.xml import read_certificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was tried; `message` says what was found, or what is wrong."""

    name: str
    succeeded: bool
    message: str


async def check_provider(door: FrontDoor, account: AccountId, provider: Provider) -> Sequence[Step]:
    """Try all that can be tried without a person; asks the provider now, whatever is remembered of it."""
    steps = await _check_oidc(door, account, provider) if provider.oidc is not None else _check_saml(provider)
    async with door.databases.operation(system("single-sign-on"), account=account) as op:
        verified = [domain for domain in await list_domains(op) if domain.is_verified]
    message = f"{len(verified)} verified" if verified else "no mail domain is verified, so nobody gets in yet"
    return [*steps, Step(name="domains", succeeded=bool(verified), message=message)]


async def _check_oidc(door: FrontDoor, account: AccountId, provider: Provider) -> Sequence[Step]:
    client = client_of(door, account, provider)
    try:
        metadata = await client.fetch_metadata()
    except StrongroomError as error:
        return [Step(name="metadata", succeeded=False, message=str(error))]
    found = Step(name="metadata", succeeded=True, message=f"sign-in at {metadata.authorization_endpoint}")
    try:
        keys = await client.check_keys()
    except StrongroomError as error:
        return [found, Step(name="keys", succeeded=False, message=str(error))]
    return [found, Step(name="keys", succeeded=True, message=f"{keys} published")]


def _check_saml(provider: Provider) -> Sequence[Step]:
    """There is nobody to ask: SAML goes through browsers alone."""
    settings = provider.saml
    certificates = [] if settings is None else [read_certificate(text) for text in settings.certificates]
    until = ", ".join(f"until {one.not_valid_after_utc:%Y-%m-%d}" for one in certificates)
    return [Step(name="certificates", succeeded=bool(certificates), message=f"{len(certificates)} ({until})")]

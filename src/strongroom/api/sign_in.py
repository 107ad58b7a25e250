"""Signing in, and what anybody may ask: health, readiness and the keys that tokens are signed with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.identity import Tokens, sign_in
from strongroom.kernel.actors import system


class TokenBody(msgspec.Struct, rename="camel"):
    """A token, and its end in epoch milliseconds (as a text)."""

    access_token: str
    expires: str


class HealthBody(msgspec.Struct, rename="camel"):
    """The process answers."""

    status: str
    environment: str


class ReadyBody(msgspec.Struct, rename="camel"):
    """The process can do its work: every region's database answers."""

    status: str
    regions: list[str]


class KeySetBody(msgspec.Struct, rename="camel"):
    """A JSON Web Key Set (RFC 7517 section 5)."""

    keys: list[dict[str, Any]]


async def _sign_in(call: Call) -> Reply:
    issued = await sign_in(
        call.services.databases,
        call.services.part(Tokens),
        authorization=call.header("authorization"),
        body=call.body,
        correlation_id=call.correlation_id,
        source=call.source,
    )
    return Reply(201, TokenBody(access_token=issued.token.reveal(), expires=str(issued.expires_ms)))


async def _health(call: Call) -> Reply:
    return Reply(200, HealthBody(status="ok", environment=call.services.config.environment.value))


async def _ready(call: Call) -> Reply:
    databases = call.services.databases
    await asyncio.gather(*(_reach(call, region) for region in databases.regions))
    async with databases.directory():
        return Reply(200, ReadyBody(status="ready", regions=list(databases.regions)))


async def _reach(call: Call, region: str) -> None:
    async with call.services.databases.operation(system("readiness"), region=region) as op:
        await op.row("select 1")


async def _key_set(call: Call) -> Reply:
    return Reply(200, KeySetBody(**call.services.part(Tokens).key_set()))


ROUTES: Final[Sequence[Route]] = (
    Route(
        method="POST",
        path="/v1/identity/hmac",
        summary="Sign in with an API key",
        tag="Identity",
        access=Access.PUBLIC,
        call=_sign_in,
        replies={201: TokenBody},
        errors=(401,),
    ),
    Route(
        method="GET",
        path="/health",
        summary="Whether the process answers",
        tag="Installation",
        access=Access.PUBLIC,
        call=_health,
        replies={200: HealthBody},
    ),
    Route(
        method="GET",
        path="/ready",
        summary="Whether the databases answer",
        tag="Installation",
        access=Access.PUBLIC,
        call=_ready,
        replies={200: ReadyBody},
    ),
    Route(
        method="GET",
        path="/.well-known/jwks.json",
        summary="The keys that tokens are signed with",
        tag="Identity",
        access=Access.PUBLIC,
        call=_key_set,
        replies={200: KeySetBody},
    ),
)

"""What a route is: a row of one table, from which serving, authorisation, the guards and OpenAPI are all made."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from strongroom.access import Permission
from strongroom.api.services import Services
from strongroom.database import Operation, in_operation
from strongroom.identity import Target
from strongroom.kernel.actors import STRANGER, Actor
from strongroom.kernel.errors import StrongroomError
from strongroom.kernel.networks import Address

T = TypeVar("T")
MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest request body, except where a route streams."""


class Access(enum.StrEnum):
    """Who gets to a route at all."""

    PUBLIC = "public"
    ACCOUNT = "account"
    """A token of an account's key."""
    TENANT = "tenant"
    """A token of a tenant's key."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, after routing and sign-in."""

    services: Services
    route: Route
    target: Target
    """What was asked, as it came."""
    actor: Actor = STRANGER
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    body: bytes = b""
    chunks: Callable[[], Awaitable[bytes | None]] | None = None
    """For routes that stream: the next piece of the body, or None at its end."""
    correlation_id: str = ""
    source: Address | None = None
    """Where the request comes from, past the proxies that are trusted; None where there is no network."""

    def header(self, name: str) -> str:
        """A header's value (name in lower case), or an empty string."""
        return self.headers.get(name.encode(), b"").decode("latin-1")

    def operation(self) -> AbstractAsyncContextManager[Operation]:
        """The operation in which the call's work is done: of the actor's tenant, else of its account."""
        actor = self.actor
        return self.services.databases.operation(
            actor, account=actor.account_id, tenant=actor.tenant_id, correlation_id=self.correlation_id
        )

    async def run(self, act: Callable[[Operation], Awaitable[T]]) -> T:
        """What `act` gives in such an operation; see `database.in_operation`."""
        return await in_operation(self.operation, act)


@dataclass(slots=True)
class Reply:
    """An answer: a status, a body to be rendered as JSON (None: no body), further headers."""

    status: int
    body: Any = None
    headers: Sequence[tuple[bytes, bytes]] = ()
    content: bytes | None = None
    """Bytes to send as they are instead of `body`, of `media`."""
    media: bytes = b"application/json"
    unrepeatable: tuple[str, ...] = ()
    """Fields of the body that are shown once: an idempotent replay answers them with null."""


OperationHandler = Callable[[Operation, Call], Awaitable[Reply]]
CallHandler = Callable[[Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A row of the table.

    Either `operation` (runs inside an operation of the actor's tenant or account, with idempotency and commit around
    it) or `call` (opens operations itself) handles it.
    """

    method: str
    path: str
    summary: str
    tag: str
    access: Access
    permission: Permission | None = None
    operation: OperationHandler | None = None
    call: CallHandler | None = None
    request: Any = None
    """The body as documented; None: no body is read."""
    request_media: tuple[str, ...] = ("application/json",)
    replies: Mapping[int, Any] = field(default_factory=lambda: {200: None})
    """Status → type of the body (None: no body, bytes: a stream of NDJSON)."""
    query: Mapping[str, str] = field(default_factory=dict)
    """Query parameters → their description."""
    streams: bool = False
    reply_media: str = "application/json"
    errors: tuple[int, ...] = ()
    """Statuses of errors beyond those that every route of its kind can answer."""
    codes: tuple[str, ...] = ()
    """Codes of its own errors, where they are documented route by route."""
    tell: Callable[[Call, StrongroomError], Reply] | None = None
    """How its errors are told, where another standard says so; `error_body` is what they look like then."""
    error_body: Any = None

    def __post_init__(self) -> None:
        if (self.operation is None) == (self.call is None):
            raise TypeError(f"{self.method} {self.path} needs exactly one handler")


def wire_name(field: str) -> str:
    """A struct field's name in JSON: camel case, with `_links` for HAL's links."""
    if field == "links":
        return "_links"
    first, *rest = field.split("_")
    return first + "".join(part.title() for part in rest)

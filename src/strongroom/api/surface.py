"""The ASGI surface: from bytes to a `Call`, from a `Reply` or an error to bytes.

Starlette finds the route. Bodies are parsed by hand rather than by a framework because the contract wants every failure
of a request listed together, in field order, with its own code.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

import msgspec
import structlog
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router

from strongroom.access import require_held, with_own_roles
from strongroom.api import idempotency, problems
from strongroom.api.patience import Patience
from strongroom.api.routing import MAX_BODY_BYTES, Access, Call, Reply, Route
from strongroom.api.services import Services
from strongroom.api.source import SourceReader
from strongroom.audit import Entry, record_many
from strongroom.database import Coalescer
from strongroom.identity import PUBLIC_KEY_ALGORITHMS, Target
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import (
    Failure,
    Forbidden,
    Invalid,
    StrongroomError,
    TooLarge,
    TooOften,
    Unauthenticated,
    Unavailable,
    UnsupportedMedia,
)
from strongroom.kernel.ids import new_uuid_text, parse_uuid

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_JSON: Final = "application/json"
_READ_AS_JSON: Final = frozenset({"", _JSON, "application/json-patch+json", "text/json"})
_CORRELATION_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
STALLED_AFTER_S: Final = 20.0
"""How long a request's body may pause."""
BODY_WITHIN_S: Final = 60.0
"""How long a body may take, where a route doesn't stream it."""
_CHANGING: Final = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_SINGLE: Final = (
    b"authorization", b"dpop", b"x-account-id", b"x-tenant-id", b"idempotency-key", b"content-type",
    b"content-encoding",
)  # fmt: skip
"""Headers that decide who acts and what is read: sent twice, a proxy could have gone by the other one."""
_OF_PROOFS: Final = {
    "DPOP_NONCE_REQUIRED": "use_dpop_nonce",
    "DPOP_PROOF_REFUSED": "invalid_dpop_proof",
    "DPOP_PROOF_REPLAYED": "invalid_dpop_proof",
    "TOKEN_IS_BOUND": "invalid_token",
}
"""Our codes for what is wrong with proofs → those of RFC 9449 section 7.1."""
_SECURITY_HEADERS: Final = (
    (b"strict-transport-security", b"max-age=63072000; includeSubDomains"),
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
)
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Surface:
    """Serves one route table."""

    def __init__(self, services: Services, routes: Sequence[Route]) -> None:
        self._services = services
        self._sources = SourceReader(services.config.trusted_proxies)
        self._patience = Patience()
        self._refusals: Coalescer[Actor, Entry, None] = Coalescer(self._record_refusals)
        paths: dict[str, dict[str, Route]] = {}
        for route in routes:
            paths.setdefault(route.path, {})[route.method] = route
        endpoints = {path: _Endpoint(self, methods) for path, methods in paths.items()}
        # Paths without parameters need no looking for. A method that such a path doesn't answer may be meant for a
        # resource of that name: GET /v1/order-management/bulk reads the order "bulk".
        self._fixed = {path: endpoint for path, endpoint in endpoints.items() if "{" not in path}
        self._router = Router(
            [_Path(path, endpoint) for path, endpoint in endpoints.items() if path not in self._fixed],
            redirect_slashes=False,
            default=self._refuse,
        )

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one request (ASGI 3, scope type `http`)."""
        path = scope["path"]
        scope["sent_path"] = path
        if len(path) > 1 and path[-1] == "/":
            scope["path"] = path[:-1]
        if path.startswith("/v2/order-management"):
            scope["path"] = "/v1" + scope["path"][3:]
        endpoint = self._fixed.get(scope["path"])
        if endpoint is None or scope["method"] not in endpoint.methods:
            return self._router(scope, receive, send)
        scope["path_params"] = {}
        return endpoint(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        endpoint = self._fixed.get(scope["path"])
        if endpoint is not None:
            await endpoint(scope, receive, send)
            return
        failure = Failure("PATH_NOT_FOUND", "There is nothing at this path.")
        await _send_failures(send, scope, [failure], 404, correlation_id=_correlation_id(dict(scope["headers"])))

    async def serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request on a known route."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        call = Call(
            services=self._services,
            route=route,
            target=Target(method=scope["method"], path=scope["sent_path"]),
            path=scope["path_params"],
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"))) if scope["query_string"] else {},
            headers=headers,
            correlation_id=_correlation_id(headers),
            source=self._sources.read(scope.get("client"), scope["headers"]),
        )
        try:
            if len(headers) < len(scope["headers"]):
                _check_single(scope["headers"])
            reply = await self._answer(call, receive)
        except StrongroomError as raised:
            error = await self._foremost(call, raised)
            status = problems.status_of(error)
            if status == 500:
                log.exception("api.broken", codes=[failure.code for failure in error.failures], path=route.path)
            await self._refused(call, error, status)
            if route.tell is not None:
                await _send_reply(send, route.tell(call, error), call.correlation_id)
                return
            extra = self._error_headers(error)
            await _send_failures(send, scope, error.failures, status, correlation_id=call.correlation_id, extra=extra)
        except Exception:
            log.exception("api.failed", path=route.path, correlation_id=call.correlation_id)
            failure = Failure(
                "INTERNAL_ERROR", "Something went wrong on our side. Quote the correlation id to support."
            )
            await _send_failures(send, scope, [failure], 500, correlation_id=call.correlation_id)
        else:
            await _send_reply(send, reply, call.correlation_id)

    async def _answer(self, call: Call, receive: Receive) -> Reply:
        route = call.route
        if route.access is not Access.PUBLIC:
            call.actor = await self._authenticate(call)
            _check_headers(call)
            call.actor = await with_own_roles(self._services.databases, call.actor)
            if route.permission is not None:
                require_held(call.actor, route.permission)
        if route.method in _CHANGING:
            _check_encoding(call)
        if route.streams:
            call.chunks = _chunks(receive, self._patience)
        else:
            if route.method in _CHANGING:
                _check_media(call)
            call.body = await _read_body(receive, self._patience)
        if route.call is not None:
            return await route.call(call)
        handler = route.operation
        assert handler is not None  # noqa: S101  # Route holds exactly one of the two
        return await call.run(lambda op: idempotency.once(op, call, handler))

    async def _authenticate(self, call: Call) -> Actor:
        admission = self._services.admission
        return await admission.admit(call.header("authorization"), call.header("dpop"), call.target, call.source)

    async def _foremost(self, call: Call, error: StrongroomError) -> StrongroomError:
        """What is told of a refusal: who may not come in at all learns that, and nothing of what they sent."""
        status = problems.status_of(error)
        if call.actor.account_id is None or status in {401, 403} or status >= 500:
            return error
        try:
            async with call.operation():
                return error
        except (Unauthenticated, Forbidden) as foremost:
            return foremost
        except StrongroomError:
            return error

    async def _refused(self, call: Call, error: StrongroomError, status: int) -> None:
        """Record a refusal, in an operation of its own; a database that is away doesn't change the answer."""
        if (
            call.actor.account_id is None
            or not (status in {401, 403} or call.route.method in _CHANGING)
            or status >= 500
        ):
            return
        entry = Entry(
            action=f"{call.route.method} {call.route.path}",
            subject_kind="request",
            subject_id=call.correlation_id,
            outcome="refused",
            detail=" ".join(failure.code for failure in error.failures[:8]),
            correlation_id=call.correlation_id,
        )
        try:
            await self._refusals.submit(call.actor, entry)
        except StrongroomError as failed:
            log.warning("api.refusal_not_recorded", code=failed.code, correlation_id=call.correlation_id)

    def _error_headers(self, error: StrongroomError) -> Sequence[tuple[bytes, bytes]]:
        if error.code in _OF_PROOFS:
            challenge = f'DPoP error="{_OF_PROOFS[error.code]}", algs="{" ".join(PUBLIC_KEY_ALGORITHMS)}"'
            nonce = self._services.admission.proofs.fresh_nonce()
            return ((b"www-authenticate", challenge.encode()), (b"dpop-nonce", nonce.encode()))
        if isinstance(error, Unauthenticated):
            return ((b"www-authenticate", b'Bearer realm="strongroom"'),)
        return _waiting(error)

    async def _record_refusals(self, actor: Actor, entries: Sequence[Entry]) -> Sequence[None]:
        recorder = Actor(kind=actor.kind, name=actor.name, account_id=actor.account_id, tenant_id=actor.tenant_id)
        async with self._services.databases.operation(
            recorder, account=actor.account_id, tenant=actor.tenant_id
        ) as operation:
            operation.actor = actor
            await record_many(operation, entries)
        return [None] * len(entries)


class _Endpoint:
    """All methods of one path, as an ASGI application."""

    def __init__(self, surface: Surface, methods: Mapping[str, Route]) -> None:
        self._surface = surface
        self.methods = methods
        self._allow = ", ".join(sorted(methods)).encode()

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        route = self.methods.get(scope["method"])
        if route is None:
            return self._refuse(scope, send)
        return self._surface.serve(route, scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        failure = Failure("METHOD_NOT_ALLOWED", "This path doesn't answer this method; see the Allow header.")
        correlation_id = _correlation_id(dict(scope["headers"]))
        extra = ((b"allow", self._allow),)
        await _send_failures(send, scope, [failure], 405, correlation_id=correlation_id, extra=extra)


class _Path(StarletteRoute):
    """A path with parameters.

    Another one may match as well (`/bulk/{jobId}` and `/{orderRef}/metadata`): the first that answers the method does,
    and only if none does, the first says which methods it answers.
    """

    def __init__(self, path: str, endpoint: _Endpoint) -> None:
        super().__init__(path, endpoint, methods=list(endpoint.methods))

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request to the endpoint, whatever its method."""
        await self.app(scope, receive, send)


def build_asgi(services: Services, routes: Sequence[Route]) -> Surface:
    """The ASGI application of a route table."""
    return Surface(services, routes)


def _correlation_id(headers: Mapping[bytes, bytes]) -> str:
    given = headers.get(b"x-correlation-id")
    if given is not None and _CORRELATION_ID.fullmatch(text := given.decode("latin-1")):
        return text
    return new_uuid_text()


def _check_headers(call: Call) -> None:
    """`x-account-id` and `x-tenant-id` must be there and agree with the token (wire contract, section 1)."""
    actor, access = call.actor, call.route.access
    if (access is Access.TENANT) != (actor.tenant_id is not None):
        raise Forbidden(
            Failure(
                "WRONG_LEVEL",
                "This route needs a key of {wanted}; the token was made with a key of {found}.",
                {
                    "wanted": "a tenant" if access is Access.TENANT else "an account",
                    "found": "a tenant" if actor.tenant_id is not None else "an account",
                },
            )
        )
    headers = call.headers
    if _uuid_in(headers.get(b"x-account-id", b"")) == actor.account_id and (
        access is not Access.TENANT or _uuid_in(headers.get(b"x-tenant-id", b"")) == actor.tenant_id
    ):
        return
    expected: list[tuple[str, str, UUID | None]] = [("x-account-id", "ACCOUNT_ID_IS_REQUIRED", actor.account_id)]
    if access is Access.TENANT:
        expected.append(("x-tenant-id", "TENANT_ID_IS_REQUIRED", actor.tenant_id))
    missing = [
        Failure(code, "The header {header} is required.", {"header": name})
        for name, code, _ in expected
        if not call.headers.get(name.encode())
    ]
    if missing:
        raise Invalid(*missing)
    for name, _, value in expected:
        if _uuid_in(call.headers[name.encode()]) != value:
            raise Forbidden(
                Failure("HEADERS_DISAGREE", "The header {header} doesn't agree with the token.", {"header": name})
            )


@lru_cache(maxsize=4096)
def _uuid_in(header: bytes) -> UUID | None:
    return parse_uuid(header.decode("latin-1").strip())


def _check_single(headers: Sequence[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers]
    failures = [
        Failure("HEADER_SENT_TWICE", "Send the header {header} once.", {"header": name.decode()})
        for name in _SINGLE
        if names.count(name) > 1
    ]
    if failures:
        raise Invalid(*failures)


def _check_encoding(call: Call) -> None:
    if b"content-encoding" not in call.headers:
        return
    encoding = call.header("content-encoding").strip().lower()
    if encoding not in {"", "identity"}:
        raise UnsupportedMedia(
            Failure(
                "CONTENT_ENCODING_NOT_SUPPORTED",
                "Send the body as it is, not encoded as {encoding}.",
                {"encoding": encoding[:100]},
            )
        )


def _check_media(call: Call) -> None:
    media = _media_of(call.headers.get(b"content-type", b""))
    wanted = call.route.request_media[0]
    if media not in (_READ_AS_JSON if wanted == _JSON else call.route.request_media):
        raise UnsupportedMedia(
            Failure("MEDIA_TYPE_NOT_SUPPORTED", "Send {wanted}, not {media}.", {"wanted": wanted, "media": media[:100]})
        )


@lru_cache(maxsize=256)
def _media_of(content_type: bytes) -> str:
    return content_type.decode("latin-1").partition(";")[0].strip().lower()


async def _read_body(receive: Receive, patience: Patience) -> bytes:
    until_s = asyncio.get_running_loop().time() + BODY_WITHIN_S
    body, more = await _next_part(receive, patience, until_s)
    if not more and len(body) <= MAX_BODY_BYTES:
        return body
    parts, size = [body], len(body)
    while more and size <= MAX_BODY_BYTES:
        part, more = await _next_part(receive, patience, until_s)
        parts.append(part)
        size += len(part)
    if size > MAX_BODY_BYTES:
        raise _too_large()
    return b"".join(parts)


def _chunks(receive: Receive, patience: Patience) -> Callable[[], Awaitable[bytes | None]]:
    more = True

    async def next_chunk() -> bytes | None:
        nonlocal more
        if not more:
            return None
        part, more = await _next_part(receive, patience)
        return part

    return next_chunk


async def _next_part(receive: Receive, patience: Patience, until_s: float = math.inf) -> tuple[bytes, bool]:
    """The next part of a body, if it comes in time, and whether there is more. `until_s` is by the loop's clock."""
    latest_s = asyncio.get_running_loop().time() + STALLED_AFTER_S
    try:
        message = await patience.wait(receive(), min(latest_s, until_s))
    except TimeoutError:
        raise Invalid(
            Failure(
                "REQUEST_TOO_SLOW",
                "The body didn't come: it may pause for {pause} seconds at most, and take {whole} unless it is a bulk "
                "upload or a bank's report.",
                {"pause": int(STALLED_AFTER_S), "whole": int(BODY_WITHIN_S)},
            )
        ) from None
    if message["type"] == "http.disconnect":
        raise _gone()
    return message.get("body", b""), bool(message.get("more_body"))


def _gone() -> Invalid:
    """The web server tells a client that left and chunks that are none (RFC 9112, section 7.1) by the same word."""
    return Invalid(
        Failure("CLIENT_GONE", "The request broke off: the connection was closed, or the body's chunks are malformed.")
    )


def _too_large() -> TooLarge:
    return TooLarge(
        Failure("REQUEST_TOO_LARGE", "A request body has at most {limit} bytes.", {"limit": MAX_BODY_BYTES})
    )


def _waiting(error: StrongroomError) -> Sequence[tuple[bytes, bytes]]:
    if isinstance(error, TooOften):
        return ((b"retry-after", str(error.retry_after_s).encode()),)
    if isinstance(error, Unavailable):
        return ((b"retry-after", str(problems.RETRY_AFTER_S).encode()),)
    return ()


async def _send_reply(send: Send, reply: Reply, correlation_id: str) -> None:
    content = reply.content if reply.content is not None else b"" if reply.body is None else _encode(reply.body)
    headers = [(b"x-correlation-id", correlation_id.encode()), *_SECURITY_HEADERS, *reply.headers]
    if content or reply.content is not None:
        headers.append((b"content-type", reply.media))
    headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _send_failures(
    send: Send,
    scope: Scope,
    failures: Sequence[Failure],
    status: int,
    *,
    correlation_id: str,
    extra: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
    content, media = problems.render(failures, status, correlation_id, accept)
    await _send_reply(send, Reply(status, content=content, media=media, headers=extra), correlation_id)

"""OAuth 2.0 for programs: tokens by client credentials, what a token is, its revocation, and the server's metadata.

Errors are told as RFC 6749 section 5.2 wants them, with our own code beside theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api import problems
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.identity import ALGORITHM, PUBLIC_KEY_ALGORITHMS, Form, TokenEndpoint
from strongroom.kernel.errors import Failure, Forbidden, Invalid, StrongroomError, TooOften, Unauthenticated

FORM: Final = "application/x-www-form-urlencoded"
TOKEN_PATH: Final = "/oauth/token"  # noqa: S105  a path
INTROSPECTION_PATH: Final = "/oauth/introspect"
REVOCATION_PATH: Final = "/oauth/revoke"
MAX_PARAMETERS: Final = 20
_ERRORS: Final[Mapping[str, str]] = {
    "DPOP_NONCE_REQUIRED": "use_dpop_nonce",
    "DPOP_PROOF_REFUSED": "invalid_dpop_proof",
    "DPOP_PROOF_REPLAYED": "invalid_dpop_proof",
    "GRANT_TYPE_NOT_SUPPORTED": "unsupported_grant_type",
    "SCOPE_NOT_ALLOWED": "invalid_scope",
}
"""Our codes → theirs, where the situation alone doesn't tell (RFC 9449 sections 5 and 8 for the first three)."""


class TokenReply(msgspec.Struct):
    """A token (RFC 6749 section 5.1)."""

    access_token: str
    token_type: str
    expires_in: int
    """In seconds."""
    scope: str | UnsetType = UNSET
    """The permissions that it is good for, parted by spaces. Left out where roles of the account's own alone tell."""


class OAuthErrorBody(msgspec.Struct):
    """An error (RFC 6749 section 5.2)."""

    error: str
    error_description: str
    code: str
    """What it is called in the rest of this API."""


class TokenRequest(msgspec.Struct):
    """The client credentials grant (RFC 6749 section 4.4.2)."""

    grant_type: str
    scope: str | None = None
    client_id: str | None = None
    client_assertion_type: str | None = None
    client_assertion: str | None = None


class AboutTokenRequest(msgspec.Struct):
    """What a request about a token holds (RFC 7662 section 2.1, RFC 7009 section 2.1)."""

    token: str
    token_type_hint: str | None = None
    client_id: str | None = None
    client_assertion_type: str | None = None
    client_assertion: str | None = None


async def _token(call: Call) -> Reply:
    granted = await _endpoint(call).grant(_form(call))
    body = TokenReply(
        access_token=granted.token.reveal(),
        token_type=granted.kind,
        expires_in=granted.expires_in_s,
        scope=granted.scope or UNSET,
    )
    nonce = _nonce(call) if granted.kind == "DPoP" else ()
    return Reply(200, body, headers=(*_NOT_KEPT, *nonce))


async def _introspect(call: Call) -> Reply:
    return Reply(200, dict(await _endpoint(call).introspect(_form(call))))


async def _revoke(call: Call) -> Reply:
    await _endpoint(call).revoke(_form(call))
    return Reply(200)


async def _metadata(call: Call) -> Reply:
    issuer = _endpoint(call).issuer
    return Reply(
        200,
        {
            "issuer": issuer,
            "token_endpoint": issuer + TOKEN_PATH,
            "introspection_endpoint": issuer + INTROSPECTION_PATH,
            "revocation_endpoint": issuer + REVOCATION_PATH,
            "jwks_uri": f"{issuer}/.well-known/jwks.json",
            "response_types_supported": [],
            "grant_types_supported": ["client_credentials"],
            "scopes_supported": sorted(Permission),
            "access_token_signing_alg_values_supported": [ALGORITHM],
            "dpop_signing_alg_values_supported": list(PUBLIC_KEY_ALGORITHMS),
            **{
                f"{name}_endpoint_auth_{key}": value
                for name in ("token", "introspection", "revocation")
                for key, value in (
                    ("methods_supported", ["private_key_jwt"]),
                    ("signing_alg_values_supported", list(PUBLIC_KEY_ALGORITHMS)),
                )
            },
        },
    )


def tell(call: Call, error: StrongroomError) -> Reply:
    """An error of these routes."""
    code = error.code
    status = problems.status_of(error)
    headers: tuple[tuple[bytes, bytes], ...] = _NOT_KEPT
    if code in _ERRORS:
        told, status = _ERRORS[code], 400
    elif isinstance(error, Unauthenticated):
        told = "invalid_client"
        scheme = call.header("authorization").partition(" ")[0]
        headers += ((b"www-authenticate", b'Hmac realm="strongroom"'),) if scheme else ()
    elif isinstance(error, Forbidden):
        told, status = "unauthorized_client", 400
    elif status >= 500:
        told = "temporarily_unavailable" if status == 503 else "server_error"
    else:
        told, status = "invalid_request", status if isinstance(error, TooOften) else 400
    if told == "use_dpop_nonce":
        headers += _nonce(call)
    body = OAuthErrorBody(error=told, error_description=_plain(error.failures[0]), code=code)
    return Reply(status, body, headers=headers)


def _endpoint(call: Call) -> TokenEndpoint:
    endpoint: TokenEndpoint = call.services.part(TokenEndpoint)
    return endpoint


def _nonce(call: Call) -> tuple[tuple[bytes, bytes], ...]:
    return ((b"dpop-nonce", _endpoint(call).proofs.fresh_nonce().encode()),)


def _form(call: Call) -> Form:
    return Form(
        parameters=_parameters(call.body),
        authorization=call.header("authorization"),
        body=call.body,
        proof=call.header("dpop"),
        target=call.target,
        correlation_id=call.correlation_id,
        source=call.source,
    )


def _parameters(body: bytes) -> Mapping[str, str]:
    """The form's parameters; an empty one counts as left out, and none may be there twice (RFC 6749 section 3.2)."""
    found: dict[str, str] = {}
    pairs = [pair for pair in body.split(b"&") if pair]
    if len(pairs) > MAX_PARAMETERS:
        raise Invalid(Failure("FORM_IS_INVALID", "The form has too many parameters."))
    for pair in pairs:
        try:
            name, value = (unquote_plus(part.decode("ascii"), errors="strict") for part in pair.partition(b"=")[::2])
        except UnicodeDecodeError:
            raise Invalid(Failure("FORM_IS_INVALID", "The form isn't encoded as {media}.", {"media": FORM})) from None
        if name in found:
            raise Invalid(Failure("FORM_IS_INVALID", "Send each parameter of the form once."))
        found[name] = value
    return {name: value for name, value in found.items() if value}


def _plain(failure: Failure) -> str:
    """A message in the characters that RFC 6749 section 5.2 allows."""
    return "".join(
        character if " " <= character <= "~" and character not in '"\\' else "'" for character in failure.message
    )


_NOT_KEPT: Final = ((b"pragma", b"no-cache"),)


def _route(path: str, summary: str, *, handler: Any, request: type, reply: Any) -> Route:
    return Route(
        method="POST",
        path=path,
        summary=summary,
        tag="OAuth",
        access=Access.PUBLIC,
        call=handler,
        request=request,
        request_media=(FORM,),
        replies={200: reply},
        errors=(401,),
        tell=tell,
        error_body=OAuthErrorBody,
    )


ROUTES: Final[Sequence[Route]] = (
    _route(TOKEN_PATH, "Get a token by client credentials", handler=_token, request=TokenRequest, reply=TokenReply),
    _route(
        INTROSPECTION_PATH,
        "Ask what a token is good for",
        handler=_introspect,
        request=AboutTokenRequest,
        reply=dict[str, Any],
    ),
    _route(REVOCATION_PATH, "Revoke a token", handler=_revoke, request=AboutTokenRequest, reply=None),
    Route(
        method="GET",
        path="/.well-known/oauth-authorization-server",
        summary="What this server offers to OAuth clients",
        tag="OAuth",
        access=Access.PUBLIC,
        call=_metadata,
        replies={200: dict[str, Any]},
    ),
)

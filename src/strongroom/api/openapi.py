"""The API's description (OpenAPI 3.1.0), made from the route table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

import strongroom
from strongroom.api.problems import PROBLEM_MEDIA, ErrorBody, ProblemBody
from strongroom.api.routing import Access, Call, Reply, Route

_REF: Final = "#/components/schemas/{name}"
_PATH_NAME: Final = re.compile(r"\{(\w+)\}", re.ASCII)
_REFS: Final = frozenset({"orderRef", "instructionRef", "customerRef"})
_ERRORS: Final = {
    400: "The request can't be carried out as it stands; not found and duplicates included.",
    401: "No valid token.",
    403: "The token's roles, level or headers don't allow it.",
    409: "A request with the same idempotency key is being worked on.",
    413: "The body is too large.",
    415: "The media type is not read here.",
    422: "The idempotency key was used for another request.",
    429: "Too many requests; wait as long as Retry-After says.",
    503: "A part that this depends on is not available; try again.",
}
_MEANINGS: Final = {200: "Done.", 201: "Made.", 202: "Taken.", 204: "Done; there is nothing to say."}


def describe(routes: Sequence[Route]) -> dict[str, Any]:
    """The whole description, as plain values."""
    # All of them at once: each call would walk through everything that its bodies refer to.
    bodies = list(dict.fromkeys(_bodies(routes)))
    found, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    schemas = dict(zip(bodies, found, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "strongroom",
            "version": strongroom.__version__,
            "description": "Collect from and pay out to customers through many providers and bank rails over one API.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": _numbers(components),
            "responses": {f"Error{status}": _error(status) for status in _ERRORS},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Hmac {publicKey}:{nonce}:{epoch}:{signature}",
                },
            },
        },
    }


def render(routes: Sequence[Route]) -> bytes:
    """The description as JSON, always in the same order."""
    return msgspec.json.format(msgspec.json.encode(describe(routes)), indent=2) + b"\n"


def document_route(routes: Sequence[Route]) -> Route:
    """The route that serves the description of `routes` and of itself."""
    served: bytes = b""

    async def serve(_: Call) -> Reply:
        return Reply(200, content=served)

    route = Route(
        method="GET",
        path="/openapi.json",
        summary="Read this description",
        tag="Service",
        access=Access.PUBLIC,
        call=serve,
        replies={200: dict[str, Any]},
    )
    served = render((*routes, route))
    return route


def _bodies(routes: Sequence[Route]) -> Iterator[Any]:
    yield ErrorBody
    yield ProblemBody
    for route in routes:
        if route.request is not None:
            yield route.request
        if route.error_body is not None:
            yield route.error_body
        for body in route.replies.values():
            if body is not None and body is not bytes:
                yield body


def _operation(route: Route, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "tags": [route.tag],
        "parameters": list(_parameters(route)),
        "responses": {
            str(status): _reply(route, status, body, schemas) for status, body in sorted(route.replies.items())
        },
        "security": [] if route.access is Access.PUBLIC else [{"token": []}],
    }
    if route.permission is not None:
        operation["x-permission"] = route.permission.value
    if route.codes:
        operation["x-error-codes"] = list(route.codes)
    if route.request is not None:
        schema = schemas[route.request]
        operation["requestBody"] = {
            "required": True,
            "content": {media: {"schema": schema} for media in route.request_media},
        }
    for status in _error_statuses(route):
        told: dict[str, Any] = {"$ref": f"#/components/responses/Error{status}"}
        if route.error_body is not None:
            body = {"application/json": {"schema": schemas[route.error_body]}}
            told = {"description": _ERRORS[status], "content": body}
        operation["responses"][str(status)] = told
    return operation


def _operation_id(route: Route) -> str:
    words = re.split(r"[^A-Za-z0-9]+", route.path.strip("/"))
    return route.method.lower() + "".join(word[:1].upper() + word[1:] for word in words)


def _parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in _PATH_NAME.findall(route.path):
        schema: dict[str, Any] = {"type": "string", "minLength": 1}
        if name in _REFS:
            schema |= {"pattern": "^[a-zA-Z0-9._-]+$", "maxLength": 50}
        yield {"name": name, "in": "path", "required": True, "schema": schema}
    for name, meaning in route.query.items():
        yield {"name": name, "in": "query", "description": meaning, "schema": {"type": "string"}}
    if route.access is not Access.PUBLIC:
        yield _header("x-account-id", "The account; must agree with the token.", required=True, form="uuid")
    if route.access is Access.TENANT:
        yield _header("x-tenant-id", "The tenant; must agree with the token.", required=True, form="uuid")
    yield _header("x-correlation-id", "Echoed; made when absent.")
    if route.method == "POST" and route.access is not Access.PUBLIC:
        yield _header("Idempotency-Key", "The same key and body give the stored answer, for 24 hours.")


def _header(name: str, meaning: str, *, required: bool = False, form: str | None = None) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    if form is not None:
        schema["format"] = form
    return {"name": name, "in": "header", "required": required, "description": meaning, "schema": schema}


def _reply(route: Route, status: int, body: Any, schemas: Mapping[Any, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {"description": _MEANINGS[status]}
    if body is bytes:
        reply["content"] = {route.reply_media: {"schema": {"type": "string"}}}
    elif body is not None:
        reply["content"] = {"application/json": {"schema": schemas[body]}}
    return reply


def _error_statuses(route: Route) -> list[int]:
    statuses = [400, 503, *route.errors]
    if route.access is not Access.PUBLIC:
        statuses += [401, 403, 429]
    if route.method in {"POST", "PUT", "DELETE"} and route.error_body is None:
        statuses += [413, 415]
    if route.method == "POST" and route.access is not Access.PUBLIC:
        statuses += [409, 422]
    return sorted(set(statuses) - route.replies.keys())


def _error(status: int) -> dict[str, Any]:
    return {
        "description": _ERRORS[status],
        "content": {
            "application/json": {"schema": {"$ref": _REF.format(name="ErrorBody")}},
            PROBLEM_MEDIA.decode(): {"schema": {"$ref": _REF.format(name="ProblemBody")}},
        },
    }


def _numbers(schema: Any) -> Any:
    """Decimals are written as JSON numbers here, which msgspec's schemas don't know."""
    if isinstance(schema, dict):
        if schema.get("format") == "decimal":
            return {"type": "number"} | {key: schema[key] for key in ("title", "description") if key in schema}
        return {key: _numbers(value) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_numbers(item) for item in schema]
    return schema

"""Forwarding: a request to a provider with a card's parts in it, in three beats.

*Intend*: the request is parsed, the card opened, and the attempt written under the caller's own reference, committed.
*Act*: the request is sent, with no transaction open. *Record*: what came back, without the number. The same reference
never sends twice: it answers what was recorded. A vault that dies in between leaves an attempt whose claim runs out;
it is UNCONFIRMED from then on, since only the provider can say what became of it. A reference whose request certainly
did not leave (NOT_SENT) may be used again.
"""

from __future__ import annotations

import asyncio
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

import msgspec
import structlog

from strongroom.database.operation import Connection
from strongroom.kernel.errors import Broken, Conflict, Failure, InFlight, Invalid, KeyReused, NotFound, Refused
from strongroom.outbound import Answer, Destination, Limits, NoAnswer, NotSent, Outbound
from strongroom.vault.cards import templates
from strongroom.vault.cards.custody import Custody, Opened
from strongroom.vault.cards.keys import TenantKeys
from strongroom.vault.cards.records import By, Outcome, write_event
from strongroom.vault.cards.scrubbing import Scrubber
from strongroom.vault.cards.templates import Template

log = structlog.get_logger(__name__)

PROVIDER_LIMITS: Final = Limits(idle_s=20.0, total_s=30.0, connections=64)
CLAIM: Final = timedelta(seconds=60)
"""Longer than a request may take; afterwards nobody is at work on it any more."""
KEPT_FOR: Final = timedelta(days=90)
"""How long an answer is kept for whoever asks again."""
MAX_TEMPLATE: Final = 64 << 10
MAX_HEADERS: Final = 30
MAX_HEADER: Final = 4_096
METHODS: Final = frozenset({"POST", "PUT", "PATCH"})
_REFERENCE: Final = re.compile(r"[A-Za-z0-9._-]{1,100}", re.ASCII)
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", re.ASCII)
_HEADER_VALUE: Final = re.compile(r"[\t\x20-\x7e]*", re.ASCII)
_TOLD_HEADERS: Final = frozenset({"content-type", "location", "retry-after", "request-id", "x-request-id", "date"})
"""Headers of an answer that go back; providers put anything into the others."""
ANSWER: Final = "answer"
"""The field of a forward that is sealed."""
_SELECT: Final = (
    b"select request_hash, state, code, status, answer_sealed, claimed_until, forward_id, hash_version, answer_by "
    b"from forwards where tenant_id = %s and forward_id = any(%s) for update"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A request as asked for. `url` and `headers` go as they are; `body` is a template (`templates`)."""

    reference: str
    token: str
    method: str
    url: str
    headers: Mapping[str, str]
    content_type: str
    body: str = field(repr=False)


class ForwardAnswer(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """`forwards.answer_sealed`: a provider's answer, scrubbed."""

    headers: dict[str, str]
    body: bytes
    withheld: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How a forward stands. `status` and `answer` are there when it is ANSWERED, `code` when it isn't."""

    reference: str
    state: str
    code: str = ""
    status: int | None = None
    answer: ForwardAnswer | None = None
    is_replay: bool = False


class Egress:
    """Where the vault may send to: its own allow list, each destination with the authorities it is verified against."""

    def __init__(self, destinations: Mapping[Destination, Path | None], limits: Limits = PROVIDER_LIMITS) -> None:
        by_trust: dict[Path | None, list[Destination]] = {}
        for destination, trust in destinations.items():
            by_trust.setdefault(trust, []).append(destination)
        self._clients = {
            (destination.host, destination.port): client
            for trust, allowed in by_trust.items()
            for client in [Outbound(allowed=allowed, trust=trust, limits=limits)]
            for destination in allowed
        }

    def find(self, url: str) -> tuple[Outbound, str]:
        """The client for an address, and the address's host and port.

        Raises errors.Refused (`DESTINATION_NOT_ALLOWED`).
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 443
        except ValueError:
            host, port, parts = "", 0, urlsplit("")
        client = self._clients.get((host, port))
        if client is None or parts.scheme != "https" or "@" in parts.netloc:
            raise Refused(
                Failure(
                    "DESTINATION_NOT_ALLOWED",
                    "{host}:{port} is not on the card vault's list of destinations (https only). Add it to egress.toml "
                    "in the vault's folder, and restart the vault.",
                    {"host": host[:253], "port": port},
                )
            )
        return client, f"{host}:{port}"

    async def aclose(self) -> None:
        """Close all connections."""
        await asyncio.gather(*(client.aclose() for client in set(self._clients.values())))


def read_egress(path: Path, *, loopback_ok: bool) -> Mapping[Destination, Path | None]:
    """The allow list in a TOML file: `[[destination]]` with `host`, `port` (443) and `trust` (a PEM file beside it; the
    system's authorities when left out). No file, no destination. `loopback_ok` lets `127.0.0.1`, `::1` and `localhost`
    be listed, for a sandbox.

    Raises errors.Broken (`EGRESS_FILE_INVALID`).
    """
    if not path.exists():
        return {}
    found: dict[Destination, Path | None] = {}
    try:
        listed = tomllib.loads(path.read_text("utf-8")).get("destination", [])
        for entry in listed:
            unknown = set(entry) - {"host", "port", "trust"}
            if unknown:
                raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
            host, port, trust = entry["host"], entry.get("port", 443), entry.get("trust")
            local = host in {"127.0.0.1", "::1", "localhost"}
            if local and not loopback_ok:
                raise ValueError(f"{host} is this machine itself")
            destination = Destination(host=host, port=int(port), loopback_ok=local)
            found[destination] = None if trust is None else path.parent / trust
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Broken(
            Failure(
                "EGRESS_FILE_INVALID",
                "{path} can't be used ({reason}). It holds [[destination]] tables with host, port and trust.",
                {"path": str(path), "reason": str(error)},
            )
        ) from error
    return found


class Forwarder:
    """Carries out forwards."""

    def __init__(self, custody: Custody, egress: Egress) -> None:
        self._custody = custody
        self._egress = egress

    async def forward(self, tenant: UUID, wanted: Forward, by: By) -> Result:
        """Send a request, once, and say how it went.

        Raises errors.Invalid (`FORWARD_…`, `TEMPLATE_…`), errors.Refused (`DESTINATION_NOT_ALLOWED`), errors.NotFound
        (`CARD_NOT_FOUND`), errors.Conflict (`CVV_NOT_AVAILABLE`), errors.KeyReused (`FORWARD_REFERENCE_REUSED`) and
        errors.InFlight (`FORWARD_IN_FLIGHT`); nothing was sent then.
        """
        template = check_forward(wanted)
        client, destination = self._egress.find(wanted.url)
        known, card = await self._intend(tenant, wanted, template, destination, by)
        if card is None:
            return known
        cvv = self._custody.codes.take(tenant, wanted.token) if "cvv" in template.places else ""
        if cvv is None:
            # Another request with this card used it up a moment ago.
            result = Result(reference=wanted.reference, state="NOT_SENT", code="CVV_NOT_AVAILABLE")
        else:
            result = await _act(client, wanted, template, card, cvv)
        del card, cvv
        await self._record(tenant, wanted, destination, result, by)
        return result

    async def find(self, tenant: UUID, reference: str) -> Result:
        """How a forward stands. Raises errors.NotFound (`FORWARD_NOT_FOUND`), errors.InFlight (`FORWARD_IN_FLIGHT`)."""
        async with self._custody.records.transaction(tenant) as connection:
            keys = await self._custody.keys.of(connection, tenant)
            row = await _row(connection, tenant, keys, reference)
            if row is None:
                raise NotFound(Failure("FORWARD_NOT_FOUND", "Nothing was forwarded under this reference."))
            return self._read(keys, reference, row)

    async def _intend(
        self, tenant: UUID, wanted: Forward, template: Template, destination: str, by: By
    ) -> tuple[Result, Opened | None]:
        now = self._custody.clock.now()
        intended = Result(reference=wanted.reference, state="INTENDED")
        async with self._custody.records.transaction(tenant) as connection:
            keys = await self._custody.keys.of(connection, tenant)
            identity = msgspec.msgpack.encode(_identity(wanted))
            await connection.execute(
                "delete from forwards where tenant_id = %s and created_at < %s", (tenant, now - KEPT_FOR)
            )
            row = await _row(connection, tenant, keys, wanted.reference)
            version = keys.fingerprint_version if row is None else row[7]
            if row is not None:
                if row[0] != keys.fingerprint(identity, version):
                    raise KeyReused(
                        Failure(
                            "FORWARD_REFERENCE_REUSED",
                            "This reference was used for another request. Use a new one for a new request.",
                        )
                    )
                known = self._read(keys, wanted.reference, row)
                if known.state != "NOT_SENT":
                    return known, None
            card = await self._custody.open(connection, tenant, wanted.token)
            if "cvv" in template.places and not self._custody.codes.has(tenant, wanted.token):
                raise Conflict(
                    Failure(
                        "CVV_NOT_AVAILABLE",
                        "There is no security code for this card: it is kept for one use within minutes. Take the card "
                        "again with its code, or leave the code out of the template.",
                    )
                )
            cursor = await connection.execute(
                """
                insert into forwards (tenant_id, forward_id, token, destination, request_hash, hash_version, answer_by,
                                      state, claimed_until, created_at, updated_at)
                values (%(tenant)s, %(id)s, %(token)s, %(destination)s, %(hash)s, %(version)s, 'id',
                        'INTENDED', %(until)s, %(now)s, %(now)s)
                on conflict (tenant_id, forward_id) do update
                    set state = 'INTENDED', code = '', claimed_until = %(until)s, updated_at = %(now)s
                    where forwards.state = 'NOT_SENT'
                """,
                {
                    "tenant": tenant, "id": _forward_id(keys, wanted.reference, version), "token": wanted.token,
                    "destination": destination, "hash": keys.fingerprint(identity, version), "version": version,
                    "until": now + CLAIM, "now": now,
                },
            )  # fmt: skip
            if cursor.rowcount == 0:
                raise _in_flight()
            await write_event(
                connection, tenant, by, "card.open", token=wanted.token,
                detail=f"forward to {destination}",
            )  # fmt: skip
        return intended, card

    async def _record(self, tenant: UUID, wanted: Forward, destination: str, result: Result, by: By) -> None:
        outcomes: Mapping[str, Outcome] = {"ANSWERED": "done", "NOT_SENT": "refused", "UNCONFIRMED": "unknown"}
        async with self._custody.records.transaction(tenant) as connection:
            keys = await self._custody.keys.of(connection, tenant)
            row = await _row(connection, tenant, keys, wanted.reference)
            if row is None:
                raise _vanished()
            sealed = b""
            if result.answer is not None:
                sealed = keys.seal(row[6].hex(), ANSWER, msgspec.msgpack.encode(result.answer))
            await connection.execute(
                "update forwards set state = %s, code = %s, status = %s, answer_sealed = %s, answer_by = 'id', "
                "updated_at = %s where tenant_id = %s and forward_id = %s",
                (result.state, result.code, result.status, sealed, self._custody.clock.now(), tenant, row[6]),
            )
            detail = f"{destination} {result.status or result.code}"
            await write_event(
                connection, tenant, by, "card.forward", token=wanted.token,
                outcome=outcomes[result.state], detail=detail,
            )  # fmt: skip

    def _read(self, keys: TenantKeys, reference: str, row: Sequence[Any]) -> Result:
        _, state, code, status, sealed, claimed_until, forward_id, _, answer_by = row
        if state == "INTENDED":
            if claimed_until > self._custody.clock.now():
                raise _in_flight()
            # Whoever was at it is gone, and bytes may have left.
            state, code = "UNCONFIRMED", "FORWARD_INTERRUPTED"
        answer = None
        if sealed:
            place = forward_id.hex() if answer_by == "id" else reference
            answer = msgspec.msgpack.decode(keys.open(place, ANSWER, sealed), type=ForwardAnswer)
        return Result(reference=reference, state=state, code=code, status=status, answer=answer, is_replay=True)


async def _row(connection: Connection, tenant: UUID, keys: TenantKeys, reference: str) -> Sequence[Any] | None:
    """The forward of a reference, under whichever version of the key its id was made."""
    ids = [_forward_id(keys, reference, version) for version in keys.fingerprint_versions]
    cursor = await connection.execute(_SELECT, (tenant, ids), binary=True)
    return await cursor.fetchone()


def _forward_id(keys: TenantKeys, reference: str, version: int) -> bytes:
    """A reference may tell something, so that it is kept as a keyed hash. (A card's number has no such prefix.)"""
    return keys.fingerprint(f"forward {reference}".encode(), version)


def check_forward(wanted: Forward) -> Template:
    """The request's template, when all else of the request is right too.

    Raises errors.Invalid with every failure, in field order: `FORWARD_REFERENCE_IS_INVALID`,
    `FORWARD_METHOD_NOT_SUPPORTED`, `FORWARD_HEADERS_INVALID`, `TEMPLATE_TOO_LARGE`, and what `templates.parse` raises.
    """
    failures: list[Failure] = []
    if not _REFERENCE.fullmatch(wanted.reference):
        failures.append(
            Failure("FORWARD_REFERENCE_IS_INVALID", "reference is 1 to 100 letters, digits and ._- in any order.")
        )
    if wanted.method not in METHODS:
        failures.append(
            Failure("FORWARD_METHOD_NOT_SUPPORTED", "method is one of {known}.", {"known": ", ".join(sorted(METHODS))})
        )
    if "{{" in wanted.url or "}}" in wanted.url:
        failures.append(Failure("TEMPLATE_PLACEHOLDER_MISPLACED", "Placeholders stand in the body, not in the url."))
    if len(wanted.headers) > MAX_HEADERS or not all(
        _HEADER_NAME.fullmatch(name)
        and _HEADER_VALUE.fullmatch(value)
        and len(value) <= MAX_HEADER
        and "{{" not in value
        and name.lower() not in {"content-type", "content-length", "host"}
        for name, value in wanted.headers.items()
    ):
        failures.append(
            Failure(
                "FORWARD_HEADERS_INVALID",
                "headers are at most {count}, each of one line of ASCII of at most {length} characters, without "
                "placeholders, and without Host, Content-Type (it is contentType) and Content-Length.",
                {"count": MAX_HEADERS, "length": MAX_HEADER},
            )
        )
    template = None
    if len(wanted.body.encode("utf-8", "replace")) > MAX_TEMPLATE:
        failures.append(Failure("TEMPLATE_TOO_LARGE", "A template has at most {limit} bytes.", {"limit": MAX_TEMPLATE}))
    else:
        try:
            template = templates.parse(wanted.content_type, wanted.body)
        except Invalid as error:
            failures += error.failures
    if failures or template is None:
        raise Invalid(*failures)
    return template


async def _act(client: Outbound, wanted: Forward, template: Template, card: Opened, cvv: str) -> Result:
    body = template.fill(
        {
            "number": card.number,
            "expiry_month": f"{card.expiry.month:02}",
            "expiry_year": str(card.expiry.year),
            "holder": card.holder,
            "cvv": cvv,
        }
    )
    headers = {**wanted.headers, "content-type": template.media}
    try:
        answer = await client.request(wanted.method, wanted.url, headers=headers, body=body)
    except NotSent as error:
        return Result(reference=wanted.reference, state="NOT_SENT", code=error.code)
    except NoAnswer as error:
        return Result(reference=wanted.reference, state="UNCONFIRMED", code=error.code)
    scrubbed = _scrubbed(answer, Scrubber(card.number, card.masked))
    return Result(reference=wanted.reference, state="ANSWERED", status=answer.status, answer=scrubbed)


def _scrubbed(answer: Answer, scrubber: Scrubber) -> ForwardAnswer:
    headers = {name: scrubber.scrub_text(value) for name, value in answer.headers.items() if name in _TOLD_HEADERS}
    if answer.headers.get("content-encoding", "identity") != "identity":
        # What can't be read can't be scrubbed.
        return ForwardAnswer(headers, b"", withheld=True)
    scrubbed = scrubber.scrub(answer.body)
    return ForwardAnswer(headers, scrubbed.content, scrubbed.withheld)


def _identity(wanted: Forward) -> list[Any]:
    """What makes two requests the same one."""
    return [
        wanted.token, wanted.method, wanted.url, sorted(wanted.headers.items()), wanted.content_type, wanted.body,
    ]  # fmt: skip


def _vanished() -> Broken:
    return Broken(
        Failure(
            "FORWARD_VANISHED",
            "The record of a request that was under way is gone from the card vault's database, so that what became of "
            "it could not be written down. Ask the provider.",
        )
    )


def _in_flight() -> InFlight:
    return InFlight(
        Failure("FORWARD_IN_FLIGHT", "A request with this reference is on its way. Ask for it again in a minute.")
    )

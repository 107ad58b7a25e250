"""The customer vault: what a tenant keeps about its customers, shown through masks only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission, require
from strongroom.api import idempotency
from strongroom.api.addresses import AddressRequest
from strongroom.api.order_bodies import check_ref, read_metadata
from strongroom.api.reading import Object, read_object
from strongroom.api.routing import Access, Call, Reply, Route, wire_name
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.kernel.clock import epoch_ms
from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.ids import TenantId
from strongroom.kernel.mail_addresses import find_address
from strongroom.payments import customers, instruments
from strongroom.payments.instruments import (
    BANK_ACCOUNT,
    CARD,
    CardContent,
    Instrument,
    NewBankAccount,
    check_bank_account,
)
from strongroom.vault import Scope, destroy_ended
from strongroom.vault.card_client import CardVault

_CUSTOMER: Final = "/v1/customer-vault/{customerRef}"
_INSTRUMENTS: Final = _CUSTOMER + "/financial-instrument"
_MULTIPLE: Final = "MULTIPLE"
_CARD_TOKEN: Final = re.compile(r"card_[a-z]{1,60}", re.ASCII)


class Link(msgspec.Struct, omit_defaults=True):
    """A HAL link."""

    href: str
    name: str = ""


class CustomerLinks(msgspec.Struct, rename="camel"):
    """A customer's links."""

    self: Link
    financial_instruments: list[Link]


class SelfLink(msgspec.Struct):
    """A link to the thing itself."""

    self: Link


class CapabilitiesBody(msgspec.Struct, rename="camel"):
    """What a financial instrument can be used for."""

    value_type: str
    usage_type: str
    can_credit: bool
    can_debit: bool


class AgreementBody(msgspec.Struct, rename="camel"):
    """How often a financial instrument may be used."""

    agreement_type: str


class InstrumentBody(msgspec.Struct, rename=wire_name):
    """A financial instrument. `displayName` and `details` are masked; `createdTimestamp` is epoch milliseconds."""

    id: str
    type: str
    status: str
    display_name: str
    created_timestamp: int
    capabilities: CapabilitiesBody
    agreement: AgreementBody
    details: dict[str, str]
    links: SelfLink | UnsetType = UNSET
    """Only where the instrument is the whole answer."""


class CustomerBody(msgspec.Struct, rename=wire_name):
    """A customer with their financial instruments. `email` is masked, and left out when there is none."""

    links: CustomerLinks
    status: str
    metadata: dict[str, str]
    financial_instruments: list[InstrumentBody]
    email: str | UnsetType = UNSET


class CustomerRequest(msgspec.Struct):
    """A change of a customer: `metadata`, `email` or both; what is left out stays. A null `email` removes it.

    An object with anything else in it is metadata itself.
    """

    metadata: dict[str, str | None] | UnsetType = UNSET
    email: str | UnsetType | None = UNSET


class InstrumentRequest(msgspec.Struct, rename="camel"):
    """`BANK_ACCOUNT`: `accountHolderName` and `iban`, or else `accountNumber`, `bankCode` and `country`. `CARD`:
    `cardToken`, as the card vault gave it."""

    type: str
    card_token: str | None = None
    account_holder_name: str | None = None
    iban: str | None = None
    account_number: str | None = None
    bank_code: str | None = None
    country: str | None = None
    bic: str | None = None
    address: AddressRequest | None = None
    usage_type: str | None = None


class CardSessionBody(msgspec.Struct, rename="camel"):
    """Where a card form sends a card, and what it shows there (`Authorization: Session …`), once. `expires` is epoch
    milliseconds as a text."""

    url: str
    session_token: str
    expires: str


async def _get(op: Operation, call: Call) -> Reply:
    return Reply(200, await _customer(op, _customer_ref(call)))


async def _put(op: Operation, call: Call) -> Reply:
    ref = _customer_ref(call)
    metadata, email = _read_customer(call.body)
    await customers.put_details(op, ref, metadata, email=email)
    return Reply(202, await _customer(op, ref))


async def _forget(call: Call) -> Reply:
    """Here first, then their secret, then in the card vault. Where that is away, asking again finishes it."""
    ref = _customer_ref(call)

    async def forget(op: Operation) -> tuple[Scope, str, bool]:
        await customers.forget(op, ref)
        scope = Scope(account=op.account, tenant=op.tenant)
        return scope, customers.customer_id_of(op, ref).hex(), await instruments.has_cards(op, ref)

    scope, customer, has_cards = await call.run(forget)
    await destroy_ended(call.services.databases, scope)
    if has_cards:
        await _card_vault(call).forget_customer(TenantId(scope.id), customer, call.correlation_id)
    return Reply(202)


async def _open_card_session(call: Call) -> Reply:
    ref = _customer_ref(call)
    async with call.operation() as op:
        require(op, Permission.CARDS_WRITE)
        tenant, customer = op.tenant, customers.customer_id_of(op, ref).hex()
        await record(op, "card-session.open", "customer", customer)
    session = await _card_vault(call).open_session(tenant, customer, call.correlation_id)
    config = call.services.config
    url = f"https://{config.public_host}:{config.cards_port}/v1/cards"
    return Reply(201, CardSessionBody(url, session.session_token, str(session.expires)))


async def _add_instrument(call: Call) -> Reply:
    """202 when it is new, 200 with the one that is there when the same was told before."""
    ref = _customer_ref(call)
    sent = read_object(call.body)
    new = await _claim_card(call, ref, _read_card_token(sent)) if sent.get("type") == CARD else _read_instrument(sent)

    async def add(op: Operation, call: Call) -> Reply:
        del call
        if isinstance(new, CardContent):
            instrument, is_new = await instruments.add_card(op, ref, new)
        else:
            instrument, is_new = await instruments.add_bank_account(op, ref, new)
        return Reply(202 if is_new else 200, _instrument(instrument, ref))

    return await call.run(lambda op: idempotency.once(op, call, add))


async def _claim_card(call: Call, ref: str, token: str) -> CardContent:
    """What the card vault tells of a card, once it is this customer's."""
    async with call.operation() as op:
        tenant, customer = op.tenant, customers.customer_id_of(op, ref).hex()
    card = await _card_vault(call).claim(tenant, token, customer, call.correlation_id)
    return CardContent(
        card.token, card.brand, card.masked_number, card.expiry_month, card.expiry_year, card.fingerprint
    )


def _card_vault(call: Call) -> CardVault:
    vault: CardVault = call.services.part(CardVault)
    return vault


async def _get_instrument(op: Operation, call: Call) -> Reply:
    ref = _customer_ref(call)
    return Reply(200, _instrument(await instruments.get_instrument(op, ref, call.path["id"]), ref))


def _read_customer(body: bytes) -> tuple[dict[str, str] | None, str | None]:
    """Metadata and mail address; None: it stays as it is."""
    sent = read_object(body)
    if "email" not in sent or not sent.keys() <= {"email", "metadata"}:
        return read_metadata(body), None
    failures: list[Failure] = []
    metadata = None
    if sent.get("metadata") is not None:
        try:
            metadata = read_metadata(body)
        except Invalid as error:
            failures += error.failures
    email = sent["email"]
    if email is None:
        email = ""
    elif not isinstance(email, str) or find_address(email) is None:
        failures.append(Failure("EMAIL_IS_INVALID", "email is not a mail address."))
    if failures:
        raise Invalid(*failures)
    return metadata, email


def _customer_ref(call: Call) -> str:
    ref = call.path["customerRef"]
    failure = check_ref(ref, "CUSTOMER_REF", "customerRef")
    if failure is not None:
        raise Invalid(failure)
    return ref


def _read_card_token(source: Object) -> str:
    token = source.get("cardToken")
    if token is None or token == "":
        raise Invalid(Failure("CARD_TOKEN_IS_REQUIRED", "cardToken is required."))
    if not isinstance(token, str) or not _CARD_TOKEN.fullmatch(token):
        # Above all: nobody may send a number here.
        raise Invalid(
            Failure(
                "CARD_TOKEN_IS_INVALID",
                "cardToken is what the card vault answered when it took the card, and never a card number.",
            )
        )
    return token


def _read_instrument(source: Object) -> NewBankAccount:
    failures: list[Failure] = []
    kind = source.get("type")
    if kind is None or kind == "":
        failures.append(Failure("FINANCIAL_INSTRUMENT_TYPE_IS_REQUIRED", "type is required."))
    elif kind != BANK_ACCOUNT:
        failures.append(
            Failure(
                "FINANCIAL_INSTRUMENT_TYPE_NOT_SUPPORTED",
                "type must be {supported}: no other can be put here.",
                {"supported": f"{BANK_ACCOUNT} or {CARD}"},
            )
        )
    account = None
    try:
        account = check_bank_account(source)
    except Invalid as error:
        failures += error.failures
    if (source.get("usageType") or _MULTIPLE) != _MULTIPLE:
        failures.append(
            Failure(
                "USAGE_TYPE_NOT_SUPPORTED",
                "usageType must be {supported}, or left out: a bank account can be used again.",
                {"supported": _MULTIPLE},
            )
        )
    if failures or account is None:
        raise Invalid(*failures)
    return account


async def _customer(op: Operation, ref: str) -> CustomerBody:
    customer = await customers.get_customer(op, ref)
    kept = await instruments.list_instruments(op, ref)
    return CustomerBody(
        links=CustomerLinks(
            Link(_CUSTOMER.format(customerRef=ref)),
            [Link(_href(instrument, ref), str(instrument.financial_instrument_id)) for instrument in kept],
        ),
        status=customer.status,
        metadata=dict(customer.metadata),
        financial_instruments=[_instrument(instrument) for instrument in kept],
        email=customer.email_mask or UNSET,
    )


def _instrument(instrument: Instrument, ref: str = "") -> InstrumentBody:
    return InstrumentBody(
        id=str(instrument.financial_instrument_id),
        type=instrument.type,
        status=instrument.status,
        display_name=instrument.display_name,
        created_timestamp=epoch_ms(instrument.created_at),
        capabilities=CapabilitiesBody("VARIABLE", _MULTIPLE, instrument.can_credit, instrument.can_debit),
        agreement=AgreementBody("Reuse"),
        details=dict(instrument.details),
        links=SelfLink(Link(_href(instrument, ref))) if ref else UNSET,
    )


def _href(instrument: Instrument, ref: str) -> str:
    return f"{_INSTRUMENTS.format(customerRef=ref)}/{instrument.financial_instrument_id}"


def _route(method: str, path: str, summary: str, permission: Permission, **more: Any) -> Route:
    return Route(
        method=method,
        path=path,
        summary=summary,
        tag="Customer vault",
        access=Access.TENANT,
        permission=permission,
        **more,
    )


_READ, _WRITE = Permission.TRANSACTIONS_READ, Permission.TRANSACTIONS_WRITE
ROUTES: Final[Sequence[Route]] = (
    _route("GET", _CUSTOMER, "A customer", _READ, operation=_get, replies={200: CustomerBody}),
    _route(
        "PUT", _CUSTOMER, "Replace a customer's metadata, mail address or both", _WRITE, operation=_put,
        request=CustomerRequest, replies={202: CustomerBody},
    ),
    _route(
        "DELETE", _CUSTOMER, "Forget a customer and their cards, for good", Permission.CUSTOMERS_FORGET, call=_forget,
        replies={202: None},
    ),
    _route(
        "POST", _CUSTOMER + "/card-session", "Let a form give one of the customer's cards to the card vault",
        Permission.CARDS_WRITE, call=_open_card_session, replies={201: CardSessionBody}, errors=(429,),
    ),
    _route(
        "POST", _INSTRUMENTS, "Put a bank account or a card into a customer's vault", _WRITE, call=_add_instrument,
        request=InstrumentRequest, replies={200: InstrumentBody, 202: InstrumentBody},
    ),
    _route(
        "GET", _INSTRUMENTS + "/{id}", "A financial instrument", _READ, operation=_get_instrument,
        replies={200: InstrumentBody},
    ),
)  # fmt: skip

"""Opening: what the customer vault shows through masks, in clear, for a purpose and with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from strongroom.access import Permission
from strongroom.api.addresses import AddressBody
from strongroom.api.order_bodies import check_ref
from strongroom.api.reading import Collector, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation, Purpose
from strongroom.database.catalogue import OPENING_PURPOSES
from strongroom.kernel.errors import Invalid
from strongroom.payments.openings import FIELDS, MAX_REASON, Opened, OpenedInstrument, open_customer
from strongroom.rails.contract import Address

PATH: Final = "/v1/customer-vault/{customerRef}/open"


class OpenRequest(msgspec.Struct, rename="camel"):
    """Which fields to open, for which purpose, and why.

    `fields`: email, accountHolderName, iban, accountNumber, bankCode, bic, address. `purpose`: customer-contact (email
    only), customer-service, fraud-prevention, legal-obligation, data-subject-request. `reason` says why in at most 500
    characters (a ticket's number does) and is kept sealed. `financialInstrumentId` names one of several accounts.
    """

    fields: list[str]
    purpose: str
    reason: str
    financial_instrument_id: str | None = None


class OpenedInstrumentBody(msgspec.Struct, rename="camel"):
    """What was asked for of one bank account; what it hasn't got is left out."""

    id: UUID
    account_holder_name: str | UnsetType = UNSET
    iban: str | UnsetType = UNSET
    account_number: str | UnsetType = UNSET
    bank_code: str | UnsetType = UNSET
    bic: str | UnsetType = UNSET
    address: AddressBody | UnsetType = UNSET


class OpenedFieldsBody(msgspec.Struct, rename="camel"):
    """In clear. `email` is left out unless it was asked for, and null when there is none."""

    financial_instruments: list[OpenedInstrumentBody]
    email: str | UnsetType | None = UNSET


class OpenedBody(msgspec.Struct, rename="camel"):
    """An opening, by the id that the record has it under. `opened` is null in an idempotent replay."""

    opening_id: UUID
    opened: OpenedFieldsBody | None


async def _open(op: Operation, call: Call) -> Reply:
    ref = call.path["customerRef"]
    failure = check_ref(ref, "CUSTOMER_REF", "customerRef")
    if failure is not None:
        raise Invalid(failure)
    source, found = read_object(call.body), Collector()
    fields = found.choices(source, "fields", "FIELDS", FIELDS)
    purpose = found.choice(source, "purpose", "PURPOSE", [purpose.value for purpose in OPENING_PURPOSES])
    reason = found.text(source, "reason", "REASON", max_length=MAX_REASON)
    instrument_id = found.uuid(source, "financialInstrumentId", "FINANCIAL_INSTRUMENT_ID", required=False)
    found.check()
    opened = await open_customer(op, ref, fields, purpose=Purpose(purpose), reason=reason, instrument_id=instrument_id)
    return Reply(200, OpenedBody(opened.opening_id, _body(opened)), unrepeatable=("opened",))


def _body(opened: Opened) -> OpenedFieldsBody:
    return OpenedFieldsBody(
        financial_instruments=[_instrument(instrument) for instrument in opened.instruments],
        email=UNSET if opened.email is None else opened.email or None,
    )


def _instrument(instrument: OpenedInstrument) -> OpenedInstrumentBody:
    def text(field: str) -> str | UnsetType:
        value = instrument.fields.get(field)
        return value if isinstance(value, str) else UNSET

    address = instrument.fields.get("address")
    return OpenedInstrumentBody(
        id=instrument.financial_instrument_id,
        account_holder_name=text("accountHolderName"),
        iban=text("iban"),
        account_number=text("accountNumber"),
        bank_code=text("bankCode"),
        bic=text("bic"),
        address=_address(address) if isinstance(address, Address) else UNSET,
    )


def _address(address: Address) -> AddressBody:
    return AddressBody(
        street_address=address.street,
        extended_address=address.building or None,
        locality=address.town or None,
        region=address.region or None,
        post_code=address.post_code or None,
        country=address.country,
    )


ROUTES: Final[Sequence[Route]] = (
    Route(
        method="POST",
        path=PATH,
        summary="See something of a customer in clear, for a purpose",
        tag="Customer vault",
        access=Access.TENANT,
        permission=Permission.CUSTOMERS_OPEN,
        operation=_open,
        request=OpenRequest,
        replies={200: OpenedBody},
        errors=(429,),
    ),
)

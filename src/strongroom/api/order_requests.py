"""What clients may send to the order routes, for the description only: `order_bodies` does the reading.

The reading is more lenient than this in places that old clients need (a number as an amount, an instrument id that
isn't one): the description says what to send, not all that is taken.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from strongroom.api.order_bodies import MAX_METADATA_KEY, MAX_METADATA_VALUE, MAX_REASON, MAX_REF
from strongroom.payments.contents import MAX_METADATA_KEYS
from strongroom.payments.orders import MAX_INSTRUCTIONS

Ref = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9._-]+$", min_length=1, max_length=MAX_REF)]
Amount = Annotated[
    str, Meta(pattern=r"^[0-9]{1,12}(\.[0-9]{1,4})?$", description="A plain decimal in major units, such as 200.00.")
]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$", description="ISO 4217.")]
Country = Annotated[str, Meta(pattern=r"^[A-Z]{2}$", description="ISO 3166-1 alpha-2.")]
Day = Annotated[str, Meta(extra_json_schema={"format": "date"}, description="YYYY-MM-DD.")]
Direction = Annotated[str, Meta(pattern="^(DEBIT|CREDIT)$", description="DEBIT collects, CREDIT pays out.")]
SchemeRef = Annotated[str, Meta(pattern="^[0-9A-F]{32}$")]
Metadata = Annotated[
    dict[
        Annotated[str, Meta(min_length=1, max_length=MAX_METADATA_KEY)],
        Annotated[str, Meta(max_length=MAX_METADATA_VALUE)],
    ],
    Meta(max_length=MAX_METADATA_KEYS),
]


class NewInstructionRequest(msgspec.Struct, rename="camel"):
    """An instruction to be made."""

    instruction_ref: Ref
    customer_ref: Ref
    direction: Direction
    amount: Amount
    currency: Currency
    country: Country
    settled_by_date: Day
    financial_instrument_id: str | UnsetType | None = UNSET
    scheme_id: SchemeRef | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET


class CustomerDefaultsRequest(msgspec.Struct, rename="camel"):
    """What an order says for one customer."""

    financial_instrument_id: str | UnsetType | None = UNSET
    scheme_id: SchemeRef | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET


class NewOrderRequest(msgspec.Struct, rename="camel"):
    """An order to be made."""

    order_ref: Ref
    instructions: Annotated[list[NewInstructionRequest], Meta(max_length=MAX_INSTRUCTIONS)] | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    customer_defaults: (
        Annotated[dict[str, CustomerDefaultsRequest], Meta(max_length=MAX_INSTRUCTIONS)] | UnsetType | None
    ) = UNSET


class ChangeInstructionRequest(msgspec.Struct, rename="camel"):
    """A change to an instruction; what is left out stays."""

    customer_ref: Ref | UnsetType | None = UNSET
    direction: Direction | UnsetType | None = UNSET
    amount: Amount | UnsetType | None = UNSET
    currency: Currency | UnsetType | None = UNSET
    country: Country | UnsetType | None = UNSET
    settled_by_date: Day | UnsetType | None = UNSET
    financial_instrument_id: str | UnsetType | None = UNSET
    scheme_id: SchemeRef | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET


class MetadataRequest(msgspec.Struct):
    """Metadata, below `metadata` (the bare object is read too)."""

    metadata: Metadata


class CancelRequest(msgspec.Struct):
    """Why an instruction is cancelled."""

    reason: Annotated[str, Meta(max_length=MAX_REASON)] | UnsetType | None = UNSET


class BankAddressRequest(msgspec.Struct, rename="camel"):
    """A postal address; `country` is ISO 3166-1 alpha-2."""

    country: Country
    street_address: str | UnsetType | None = UNSET
    extended_address: str | UnsetType | None = UNSET
    locality: str | UnsetType | None = UNSET
    region: str | UnsetType | None = UNSET
    post_code: str | UnsetType | None = UNSET


class BankAccountRequest(msgspec.Struct, rename="camel"):
    """An account to be put into the customer's vault: an IBAN, or a number with its bank code and country."""

    account_holder_name: str
    iban: str | UnsetType | None = UNSET
    bic: str | UnsetType | None = UNSET
    account_number: str | UnsetType | None = UNSET
    bank_code: str | UnsetType | None = UNSET
    country: Country | UnsetType | None = UNSET
    address: BankAddressRequest | UnsetType | None = UNSET


class BulkLineRequest(NewInstructionRequest, rename="camel", kw_only=True):
    """A line of a bulk upload that holds one instruction; a line may also be a whole order."""

    order_ref: Ref
    bank_account: BankAccountRequest | UnsetType | None = UNSET

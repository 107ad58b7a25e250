"""What a rail must do, and the words for what it answers.

Two kinds of rail: a *provider* executes one payment at a time over the network; a *file rail* writes many payments
into a file for a bank, whose reports (`strongroom.rails.formats`) come back later. Both are told our own reference with
every payment and must never be told to pay twice under different references.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Protocol

from strongroom.kernel.money import Money


class Direction(enum.StrEnum):
    """Which way the money goes, seen from the customer's account (wire contract)."""

    DEBIT = "DEBIT"
    """Collect from the customer."""
    CREDIT = "CREDIT"
    """Pay out to the customer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A postal address. `country` is ISO 3166-1 alpha-2."""

    country: str
    street: str = ""
    building: str = ""
    post_code: str = ""
    town: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BankAccount:
    """Somebody's account: `holder` and either `iban` or a domestic `number` with its `bank_code`; `bic` when known."""

    holder: str
    iban: str = ""
    bic: str = ""
    number: str = ""
    bank_code: str = ""
    address: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """One payment as a rail sees it.

    `reference` is ours, unique for ever, 32 lower-case hexadecimal digits (it fits ISO 20022 Max35Text); it serves as
    end-to-end id and as the provider's idempotency key. `counterparty` is the customer's account.
    """

    reference: str
    direction: Direction
    money: Money
    counterparty: BankAccount
    due_on: date
    remittance: str = ""
    """What the customer reads on their statement, at most 140 characters."""
    instruction: str = ""
    """Which instruction this pays: an opaque id, the same under every reference. A rail that can pass it on does, so
    that the provider's books would show an instruction that was paid under two references."""


class OutcomeKind(enum.StrEnum):
    """What is known about a payment after asking a rail."""

    SETTLED = "SETTLED"
    PENDING = "PENDING"
    """Accepted; the end comes later by callback, enquiry or statement."""
    REFUSED = "REFUSED"
    """Final: no money moved, none will."""
    UNCONFIRMED = "UNCONFIRMED"
    """Nobody knows: no answer, or one that says nothing. Only an enquiry resolves it."""
    NEVER_RECEIVED = "NEVER_RECEIVED"
    """Enquiry only: the provider is certain that it has not got this reference and now refuses it for good."""
    NOT_SENT = "NOT_SENT"
    """Submission only, and never in a provider's words: it is certain that nothing left for the provider."""
    RETURNED = "RETURNED"
    """Statements only: the money went and came back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A rail's answer about one payment. `reason` is the rail's own stable code (such as ISO `AC04`): it is shown, and
    nothing is decided by it. `money` is the amount of which the rail speaks, where it names one."""

    kind: OutcomeKind
    reference: str
    provider_reference: str = ""
    reason: str = ""
    detail: str = ""
    at: datetime | None = None
    money: Money | None = None


class Provider(Protocol):
    """A rail that executes one payment at a time."""

    async def submit(self, payment: Payment) -> Outcome:
        """Ask for execution. Never raises for what the network does: that is `UNCONFIRMED` once bytes may have left,
        and `NOT_SENT` only if it is certain that nothing left."""
        ...

    async def enquire(self, reference: str) -> Outcome:
        """Ask what became of a payment. `UNCONFIRMED` when the provider can't be reached or doesn't say.

        An enquiry that finds nothing closes the reference at the provider (`NEVER_RECEIVED`), so that a request still
        on its way is refused when it arrives.
        """
        ...

    def read_notification(self, headers: Mapping[str, str], body: bytes) -> Sequence[Outcome]:
        """The outcomes in a callback. Raises errors.Unauthenticated (`NOTIFICATION_SIGNATURE_INVALID`) when forged."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentMethod:
    """A way to pay that an app offers (wire contract, section 3)."""

    id: str
    name: str
    supports_direct_sale: bool = True
    supports_recurring: bool = True
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class App:
    """A marketplace entry: what a rail can carry. Empty `currencies` or `countries` mean any."""

    id: str
    name: str
    developer_id: str
    developer_name: str
    description: str
    directions: frozenset[Direction]
    currencies: frozenset[str] = frozenset()
    countries: frozenset[str] = frozenset()
    methods: tuple[PaymentMethod, ...] = ()
    tags: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    """Names of the settings an installation must give → what they are, for people."""
    environments: frozenset[str] = frozenset({"sandbox", "production"})
    is_file_rail: bool = False
    lead_days: int = 0
    """How many days before the settlement date the rail wants the payment."""

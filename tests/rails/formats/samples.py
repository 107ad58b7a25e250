"""Made-up payments between published test accounts."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from uuid import UUID

from hypothesis import strategies as st

from strongroom.kernel.money import Money
from strongroom.rails.contract import Address, BankAccount, Direction, Payment
from strongroom.rails.formats.pain001 import AddressStyle, Batch, CreditTransferFile, Rules, split
from strongroom.rails.formats.text import SEPA_CHARACTERS

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
TODAY = NOW.date()

# The examples of the IBAN registry (ISO 13616), and accounts that banks publish for tests.
IBANS = (
    "DE89370400440532013000",
    "FR1420041010050500013M02606",
    "NL91ABNA0417164300",
    "ES9121000418450200051332",
    "IT60X0542811101000000123456",
    "AT611904300234573201",
    "BE68539007547034",
    "PT50000201231234567890154",
    "IE29AIBK93115212345678",
    "FI2112345600000785",
    "LU280019400644750000",
    "PL61109010140000071219812874",
    "CH9300762011623852957",
    "GB29NWBK60161331926819",
    "GR1601101250000000012300695",
    "SE4550000000058398257466",
    "MT84MALT011000012345MTLCAST001S",
)

DEBTOR = BankAccount(
    holder="Musterhaft Versicherung AG",
    iban="DE02120300000000202051",
    bic="BYLADEM1001",
    address=Address(country="DE", town="Köln", street="Domplatz", building="1", post_code="50667"),
)
CREDITOR = BankAccount(
    holder="Zoë Łęcka",
    iban="NL91ABNA0417164300",
    bic="ABNANL2A",
    address=Address(country="NL", town="Utrecht", street="Oudegracht", building="12 bis", post_code="3511 AB"),
)


def payment(number: int = 1, **changes: object) -> Payment:
    """A payment with its own reference."""
    sample = Payment(
        reference=f"{number:032x}",
        direction=Direction.CREDIT,
        money=Money(123_45, "EUR"),
        counterparty=CREDITOR,
        due_on=TODAY,
        remittance="Claim 4711",
    )
    return replace(sample, **changes)  # type: ignore[arg-type]  # the caller names fields of Payment


def to(holder: str, number: int = 1, *, cents: int = 123_45) -> Payment:
    """A payment to somebody of that name."""
    return payment(number, counterparty=replace(CREDITOR, holder=holder), money=Money(cents, "EUR"))


def file_of(
    *payments: Payment, rules: Rules | None = None, debtor: BankAccount = DEBTOR, message_id: str = "MSG-1"
) -> CreditTransferFile:
    """One file that holds all of `payments`."""
    rules = rules or Rules()
    (batches,) = split(payments, rules, not_before=TODAY)
    return file_with(batches, rules=rules, debtor=debtor, message_id=message_id)


def file_with(
    batches: tuple[Batch, ...],
    *,
    rules: Rules | None = None,
    debtor: BankAccount = DEBTOR,
    message_id: str = "MSG-1",
    created_at: datetime = NOW,
) -> CreditTransferFile:
    """A file with these batches."""
    return CreditTransferFile(
        message_id=message_id,
        created_at=created_at,
        initiating_party="Musterhaft Versicherung AG",
        debtor=debtor,
        rules=rules or Rules(),
        batches=batches,
    )


# What hypothesis draws from. `sepa_line` is text that goes through unchanged, `anything` is whatever people type.

_sepa = st.sampled_from(sorted(SEPA_CHARACTERS - {" "}))


def sepa_line(limit: int) -> st.SearchStrategy[str]:
    """Words of the SEPA set, with a letter in them, at most `limit` characters."""
    words = st.lists(st.text(_sepa, min_size=1, max_size=9), min_size=1, max_size=4).map(" ".join)
    return words.map(lambda text: f"A{text}"[:limit].rstrip())


def anything(limit: int) -> st.SearchStrategy[str]:
    """Any Unicode text, with a letter in it, at most `limit` characters."""
    return st.text(max_size=limit - 1).map(lambda text: f"A{text}")


def addresses(texts: st.SearchStrategy[str]) -> st.SearchStrategy[Address | None]:
    """No address, one with nothing but a country, or one with at least town and country."""
    country = st.sampled_from(["DE", "FR", "CH", "GB", "PL"])
    whole = st.builds(
        Address,
        country=country,
        town=texts,
        street=texts | st.just(""),
        building=texts | st.just(""),
        post_code=texts | st.just(""),
        region=texts | st.just(""),
    )
    return st.none() | st.builds(Address, country=country) | whole


def payments(
    *, names: st.SearchStrategy[str], texts: st.SearchStrategy[str], remittances: st.SearchStrategy[str]
) -> st.SearchStrategy[Payment]:
    """Payments with all their optional parts."""
    account = st.builds(
        BankAccount,
        holder=names,
        iban=st.sampled_from(IBANS),
        bic=st.sampled_from(["", "ABNANL2A", "UBSWCHZH80A"]),
        address=addresses(texts),
    )
    return st.builds(
        Payment,
        reference=st.uuids(version=4).map(lambda value: UUID(int=value.int).hex),
        direction=st.just(Direction.CREDIT),
        money=st.integers(1, 999_999_999_99).map(lambda cents: Money(cents, "EUR")),
        counterparty=account,
        due_on=st.dates(date(2026, 11, 20), date(2026, 11, 25)),
        remittance=remittances | st.just(""),
    )


def rules(*, sepa_characters: bool = True) -> st.SearchStrategy[Rules]:
    """Every way to write a file."""
    return st.builds(
        Rules,
        address_style=st.sampled_from(AddressStyle),
        batch_booking=st.booleans(),
        sepa_characters=st.just(sepa_characters),
    )

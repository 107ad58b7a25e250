"""What an installation knows about one bank account that pays: account, holder, and what its bank wants of files.

Comes from the string settings of an installed app; parsed once, all failures listed together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Final

from strongroom.kernel.errors import Failure, Invalid
from strongroom.kernel.money import COUNTRIES
from strongroom.rails.contract import Address, BankAccount
from strongroom.rails.formats import accounts
from strongroom.rails.formats.pain001 import (
    MAX_NAME,
    MAX_TRANSACTIONS,
    AddressStyle,
    Batch,
    CreditTransferFile,
    Rules,
)
from strongroom.rails.formats.text import line, says_something

SETTINGS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "iban": "IBAN of the account that pays",
        "holder": "name of the account's holder, as the bank knows it",
        "bic": "BIC of the bank that keeps the account",
        "initiatingParty": "name of who sends the files (default: the holder)",
        "street": "street of the holder's address",
        "building": "house number",
        "postCode": "post code",
        "town": "town; needed with country for payments that touch a country outside the EEA",
        "region": "region, county or canton",
        "country": "country, two letters (ISO 3166-1)",
        "addressStyle": "how the bank wants addresses: structured (default) or hybrid",
        "batchBooking": "one line on the statement for a whole batch: true (default) or false",
        "sepaCharacters": "spell texts in the SEPA character set: true (default) or false",
        "maxTransactionsPerFile": "most payments the bank takes in one file (default 10000)",
        "maxTransactionsPerBatch": "most payments the bank takes in one batch (default 10000)",
    }
)
"""Names of the settings → what they are, for people. `iban`, `holder` and `bic` must be given."""

_REQUIRED: Final = ("iban", "holder", "bic")
_BOOLEANS: Final = {"true": True, "false": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class BankProfile:
    """The paying account and its bank's rules."""

    account: BankAccount
    initiating_party: str
    rules: Rules

    def file(self, message_id: str, created_at: datetime, batches: tuple[Batch, ...]) -> CreditTransferFile:
        """The file to this bank that holds `batches` (from `formats.pain001.split` with this profile's rules)."""
        return CreditTransferFile(
            message_id=message_id,
            created_at=created_at,
            initiating_party=self.initiating_party,
            debtor=self.account,
            rules=self.rules,
            batches=batches,
        )


def parse(settings: Mapping[str, str]) -> BankProfile:
    """The profile that an installation's settings describe; an empty setting is as good as none.

    Raises errors.Invalid with every failure, in the order of `SETTINGS`: `SETTING_IS_REQUIRED`, `SETTING_IS_INVALID`;
    then `SETTING_NOT_RECOGNISED`.
    """
    given = {name: value.strip() for name, value in settings.items() if value.strip()}
    failures = [
        Failure(
            "SETTING_IS_REQUIRED", "setting {setting} is missing: {what}", {"setting": name, "what": SETTINGS[name]}
        )
        if name not in given
        else Failure("SETTING_IS_INVALID", "setting {setting} {problem}", {"setting": name, "problem": problem})
        for name in SETTINGS
        if (problem := _problem(name, given))
    ]
    failures += [
        Failure(
            "SETTING_NOT_RECOGNISED",
            "setting {setting} is not known; there are {known}",
            {"setting": name[:50], "known": ", ".join(SETTINGS)},
        )
        for name in given
        if name not in SETTINGS
    ]
    if failures:
        raise Invalid(*failures)
    return _build(given)


def _problem(name: str, given: Mapping[str, str]) -> str:
    """What is wrong with a setting, or nothing."""
    if name not in given:
        return _absence_problem(name, given)
    value = given[name]
    match name:
        case "iban":
            iban = accounts.find_iban(value)
            wrong = "is not an IBAN: its country, length, structure or check digits are wrong"
            return wrong if iban is None else "" if iban[:2] in accounts.SEPA else "is not in a country of SEPA"
        case "bic":
            return "" if accounts.find_bic(value) else "is not a BIC: its structure or country is wrong"
        case "holder" | "initiatingParty" | "town":
            return "" if says_something(line(value, MAX_NAME)) else "has no Latin spelling; give one"
        case "country":
            return "" if value in COUNTRIES else "is not a country code of ISO 3166-1"
        case "addressStyle":
            return "" if value in set(AddressStyle) else f"must be one of {', '.join(AddressStyle)}"
        case "batchBooking" | "sepaCharacters":
            return "" if value in _BOOLEANS else "must be true or false"
        case "maxTransactionsPerFile" | "maxTransactionsPerBatch":
            fits = value.isascii() and value.isdigit() and len(value) < 10 and 0 < int(value) <= MAX_TRANSACTIONS
            return "" if fits else f"must be a whole number from 1 to {MAX_TRANSACTIONS}"
        case _:
            return ""


def _absence_problem(name: str, given: Mapping[str, str]) -> str:
    if name in _REQUIRED:
        return "is missing"
    abroad = given.get("iban", "")[:2].upper() in accounts.NON_EEA
    others = {"street", "building", "postCode", "region", "town", "country"} - {name}
    if name in {"town", "country"} and (abroad or not others.isdisjoint(given)):
        return "is missing: an address needs town and country"
    return ""


def _build(given: Mapping[str, str]) -> BankProfile:
    address = None
    if "town" in given:
        address = Address(
            country=given["country"],
            street=given.get("street", ""),
            building=given.get("building", ""),
            post_code=given.get("postCode", ""),
            town=given["town"],
            region=given.get("region", ""),
        )
    defaults = Rules()
    return BankProfile(
        account=BankAccount(
            holder=given["holder"],
            iban=accounts.find_iban(given["iban"]) or "",
            bic=accounts.find_bic(given["bic"]) or "",
            address=address,
        ),
        initiating_party=given.get("initiatingParty", given["holder"]),
        rules=Rules(
            address_style=AddressStyle(given.get("addressStyle", defaults.address_style)),
            batch_booking=_BOOLEANS[given.get("batchBooking", "true")],
            sepa_characters=_BOOLEANS[given.get("sepaCharacters", "true")],
            max_transactions_per_file=int(given.get("maxTransactionsPerFile", defaults.max_transactions_per_file)),
            max_transactions_per_batch=int(given.get("maxTransactionsPerBatch", defaults.max_transactions_per_batch)),
        ),
    )

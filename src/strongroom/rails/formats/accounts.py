"""Which accounts a SEPA payment can reach."""

from __future__ import annotations

from typing import Final

from schwifty import BIC, IBAN
from schwifty.exceptions import SchwiftyException

EEA: Final = frozenset(
    {"AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IS", "IT", "LI", "LT",
     "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK"}
)  # fmt: skip
"""Countries of the European Economic Area, by the prefix of their IBANs. Åland uses FI; the French overseas departments
and Saint-Pierre-et-Miquelon use FR."""

NON_EEA: Final = frozenset({"AD", "AL", "CH", "GB", "GI", "MC", "MD", "ME", "MK", "RS", "SM", "VA"})
"""Countries and territories of the schemes' geographical scope outside the EEA, by the prefix of their IBANs.

Source: European Payments Council, EPC409-09 "EPC list of SEPA scheme countries": Albania, Andorra, Moldova, Monaco,
Montenegro, North Macedonia, San Marino, Serbia, Switzerland, the United Kingdom (with Guernsey, Jersey and the Isle of
Man, whose IBANs begin with GB) and the Vatican; Gibraltar has IBANs of its own.
"""

SEPA: Final = EEA | NON_EEA


def find_iban(text: str) -> str | None:
    """The IBAN written in `text`, compact and upper case, or None when its country, length, structure or check digits
    (ISO 13616, ISO 7064 MOD 97-10) are wrong."""
    try:
        return str(IBAN(text)) if text.isascii() else None
    except SchwiftyException:
        return None


def find_bic(text: str) -> str | None:
    """The BIC written in `text`, upper case, 8 or 11 characters, or None when its structure or country (ISO 9362) is
    wrong."""
    try:
        return str(BIC(text)) if text.isascii() else None
    except SchwiftyException:
        return None

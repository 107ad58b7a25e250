"""The characters that SEPA messages can carry, and how everything else is spelt with them.

The set is the one of the European Payments Council's guidelines (EPC217-08, "SEPA requirements for an extended
character set"): `a-z A-Z 0-9 / - ? : ( ) . , ' +` and the space. Like there, whatever has no Latin spelling
becomes a full stop. Where the guidelines would drop an umlaut (`ä` → `a`), the usage of German, Danish, Norwegian and
Swedish banks is followed instead (`ä` → `ae`), because that is how those names are spelt on the accounts.

Lengths are counted in characters, after spelling out.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

SEPA_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/-?:().,'+ ")

_REPLACEMENT: Final = "."

_LOWER: Final = {
    # Latin letters that Unicode does not decompose, and umlauts
    "ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "å": "aa", "æ": "ae", "ø": "oe", "œ": "oe", "ł": "l", "đ": "d",
    "ð": "d", "þ": "th", "ħ": "h", "ı": "i", "ĸ": "k", "ŋ": "n", "ŧ": "t", "ə": "e",
    # Greek, letter by letter (ELOT 743); accents go by decomposition
    "α": "a", "β": "v", "γ": "g", "δ": "d", "ε": "e", "ζ": "z", "η": "i", "θ": "th", "ι": "i", "κ": "k", "λ": "l",
    "μ": "m", "ν": "n", "ξ": "x", "ο": "o", "π": "p", "ρ": "r", "σ": "s", "ς": "s", "τ": "t", "υ": "y", "φ": "f",
    "χ": "ch", "ψ": "ps", "ω": "o",
    # Cyrillic: Bulgarian (law of 2009), then the letters that only its neighbours have
    "а": "a", "б": "b", "в": "v", "г": "g", "д": "d", "е": "e", "ж": "zh", "з": "z", "и": "i", "й": "y", "к": "k",
    "л": "l", "м": "m", "н": "n", "о": "o", "п": "p", "р": "r", "с": "s", "т": "t", "у": "u", "ф": "f", "х": "h",
    "ц": "ts", "ч": "ch", "ш": "sh", "щ": "sht", "ъ": "a", "ь": "y", "ю": "yu", "я": "ya",
    "ђ": "dj", "ј": "j", "љ": "lj", "њ": "nj", "ћ": "c", "џ": "dz", "ѓ": "g", "ѕ": "dz", "ќ": "k", "ы": "y",
    "э": "e", "і": "i", "ї": "yi", "є": "ye", "ґ": "g",
}  # fmt: skip
_SIGNS: Final = {
    "&": "+", "@": "(at)", "_": "-", "€": "EUR", "£": "GBP", "$": "USD", ";": ",", "[": "(", "]": ")", "{": "(",
    "}": ")", "\\": "/", "|": "/", "⁄": "/", "`": "'", "´": "'", "‘": "'", "’": "'", "‚": ",", "‛": "'", "ʼ": "'",
    "′": "'", '"': "'", "“": "'", "”": "'", "„": "'", "«": "'", "»": "'", "‹": "'", "›": "'", "~": "-", "‐": "-",
    "‑": "-", "‒": "-", "–": "-", "—": "-", "―": "-", "−": "-", "•": "-", "·": ".", "×": "x", "…": "...",
}  # fmt: skip
_UPPER: Final = {lower.upper(): spelling.capitalize() for lower, spelling in _LOWER.items() if lower.upper() != lower}
_SPELLINGS: Final = _SIGNS | _UPPER | _LOWER | {"ẞ": "SS"}

_ILLEGAL_IN_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_sepa(text: str) -> bool:
    """Whether every character of `text` is in the SEPA set."""
    return SEPA_CHARACTERS.issuperset(text)


def to_sepa(text: str) -> str:
    """`text` spelt in the SEPA set; runs of white space become one space, nothing stands at the ends."""
    if not is_sepa(text):
        text = "".join(_spell(character) for character in unicodedata.normalize("NFC", text))
    return " ".join(text.split())


def to_xml(text: str) -> str:
    """`text` as it is, without the control characters and lone surrogates that XML 1.0 (section 2.2) can't carry."""
    return " ".join(_ILLEGAL_IN_XML.sub(_REPLACEMENT, _CONTROL.sub(" ", text)).split())


def line(text: str, limit: int, *, sepa: bool = True) -> str:
    """`text` as one line of at most `limit` characters, in the SEPA set unless `sepa` is false. May come out empty."""
    spelt = to_sepa(text) if sepa else to_xml(text)
    return spelt[:limit].rstrip()


def is_reference(text: str, limit: int) -> bool:
    """Whether `text` can stand as an identifier as it is: 1 to `limit` characters of the SEPA set, no slash at either
    end and no two together (EPC132-08, customer-to-bank guidelines, on references and identifiers)."""
    return (
        0 < len(text) <= limit
        and is_sepa(text)
        and text == text.strip()
        and not text.startswith("/")
        and not text.endswith("/")
        and "//" not in text
    )


def reference(text: str, limit: int) -> str:
    """`text` bent into an identifier as `is_reference` has it. Comes out empty when there is nothing to keep."""
    collapsed = re.sub(r"/(?:\s*/)+", "/", to_sepa(text)).strip("/ ")
    return collapsed[:limit].rstrip("/ ")


def says_something(text: str) -> bool:
    """Whether `text` holds a letter or a digit, and not only the punctuation that unknown letters leave behind."""
    return any(character.isalnum() for character in text)


def _spell(character: str) -> str:
    if character in SEPA_CHARACTERS:
        return character
    if character in _SPELLINGS:
        return _SPELLINGS[character]
    pieces = unicodedata.normalize("NFKD", character)
    if pieces != character:
        return "".join(_spell(piece) for piece in pieces)
    category = unicodedata.category(character)
    if category in {"Mn", "Me", "Cf"}:
        return ""
    if category in {"Cc", "Zs", "Zl", "Zp"}:
        return " "
    return _REPLACEMENT

"""Makes `examples/claims.csv`: a day's payments as an insurer's claims system exports them, some of them wrong.

Nobody in it exists. Names and streets are put together from lists; accounts are either the examples that the IBAN
registry publishes or have right check digits under bank codes that were given to no bank. The same call always makes
the same bytes:

    python examples/make_claims.py > examples/claims.csv
    python examples/make_claims.py --lines 1000000 > /tmp/million.csv

Every thousand lines hold the same kinds of line: claims to be paid out in euro within SEPA, claims in other
currencies, premiums to be collected, lines that ask the rehearsal bank or the rehearsal provider to misbehave
(docs/rails), and lines that the API has to refuse, each for a reason of its own (`WRONG`).
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Final

BLOCK: Final = 1_000
"""Lines after which the kinds of line come round again."""
FIRST_DAY: Final = date(2026, 9, 14)
DAYS: Final = 12
NOT_YET: Final = date(2036, 3, 31)
"""A day that hasn't come: what is due then stays open."""
COLUMNS: Final = (
    "orderRef", "instructionRef", "customerRef", "direction", "amount", "currency", "country", "settledByDate",
    "accountHolder", "iban", "bic", "accountNumber", "bankCode", "street", "building", "postCode", "town", "region",
    "addressCountry", "metadata.claimNumber", "metadata.policy", "metadata.lineOfBusiness", "metadata.handler",
    "metadata.remittanceInformation",
)  # fmt: skip

Line = dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Country:
    """Where somebody lives. `bank` is a bank code that no bank has; `digits` more make an account."""

    currency: str
    bank: str = ""
    digits: int = 0
    example: str = ""
    """The IBAN that the registry (SWIFT, release 98) gives as this country's example."""
    clearing: str = ""
    """For countries without IBANs: a clearing code that no bank has."""
    first: tuple[str, ...]
    last: tuple[str, ...]
    streets: tuple[str, ...]
    towns: tuple[tuple[str, str], ...]
    """Post code and town."""
    region: str = ""


COUNTRIES: Final[Mapping[str, Country]] = {
    "DE": Country(
        currency="EUR", bank="99999999", digits=10, example="DE89370400440532013000",
        first=("Jürgen", "Käthe", "Björn", "Müzeyyen", "Sören", "Anneliese", "Jörg", "Gülşen", "Zoë"),
        last=("Müßig", "Schöngruber", "Österreicher", "Weiß", "Großjohann", "Kühnapfel", "von der Höh", "Jäkel"),
        streets=("Gänsemarkt", "Am Mühlgraben", "Straße der Einheit", "Blücherstraße", "Kröpeliner Weg"),
        towns=(("20354", "Hamburg"), ("50667", "Köln"), ("80331", "München"), ("40213", "Düsseldorf")),
    ),
    "FR": Country(
        currency="EUR", bank="9999999999", digits=13, example="FR1420041010050500013M02606",
        first=("Aurélie", "François", "Hélène", "Benoît", "Maëlys", "Loïc", "Geneviève", "Noël"),
        last=("Lefèbvre", "D'Arcy-Béraud", "Gonçalves", "Hénault", "L'Hôpital", "Mérieux", "Saint-Exupère"),
        streets=("rue de l'Abbé-Grégoire", "avenue du Général-Leclerc", "impasse des Tilleuls", "quai Saint-Michel"),
        towns=(("75006", "Paris"), ("69002", "Lyon"), ("35000", "Rennes"), ("42000", "Saint-Étienne")),
    ),
    "NL": Country(
        currency="EUR", bank="XXXX", digits=10, example="NL91ABNA0417164300",
        first=("Joris", "Anneke", "Daniël", "Noortje", "Thijs", "Maaike"),
        last=("van 't Hof", "de Groot", "Bruïne", "van der Meer", "Hoogstraten", "Coëlho"),
        streets=("Prinsengracht", "Nieuwe Binnenweg", "Zeedijk", "Oude Delft"),
        towns=(("1016 HK", "Amsterdam"), ("3014 GE", "Rotterdam"), ("2611 CC", "Delft"), ("9711 LM", "Groningen")),
    ),
    "AT": Country(
        currency="EUR", bank="99999", digits=11, example="AT611904300234573201",
        first=("Ägidius", "Roswitha", "Alois", "Jörgen", "Veronika", "Bärbel"),
        last=("Hölzl", "Grünwald", "Strobl", "Pöchacker", "Käferböck", "Süß"),
        streets=("Mariahilfer Straße", "Am Graben", "Getreidegasse", "Dürergasse"),
        towns=(("1060", "Wien"), ("5020", "Salzburg"), ("8010", "Graz"), ("6020", "Innsbruck")),
    ),
    "ES": Country(
        currency="EUR", bank="99999999", digits=12, example="ES9121000418450200051332",
        first=("Begoña", "José María", "Íñigo", "Núria", "Álvaro", "Concepción"),
        last=("Muñoz Ibáñez", "Peña", "Güell", "Fernández-Cuesta", "Àlvarez", "Núñez"),
        streets=("calle de la Princesa", "Paseo de Recoletos", "avinguda Diagonal", "plaza de la Constitución"),
        towns=(("28008", "Madrid"), ("08036", "Barcelona"), ("15001", "A Coruña"), ("46002", "València")),
    ),
    "IT": Country(
        currency="EUR", bank="X9999999999", digits=12, example="IT60X0542811101000000123456",
        first=("Niccolò", "Maria José", "Desirée", "Cosimo", "Letizia", "Eleonora"),
        last=("D'Agostìno", "Forlì", "De Nicolò", "Pagliarùlo", "Sant'Elia", "Bonafè"),
        streets=("via della Libertà", "corso Vittorio Emanuele", "piazza San Babila", "viale Monza"),
        towns=(("20122", "Milano"), ("00184", "Roma"), ("47121", "Forlì"), ("10121", "Torino")),
    ),
    "BE": Country(
        currency="EUR", bank="999", digits=9, example="BE68539007547034",
        first=("Anaïs", "Lieve", "Benoît", "Joëlle", "Wouter"),
        last=("Van den Broeck", "Deprez", "Noël", "D'Hondt", "Lemaître"),
        streets=("rue Neuve", "Korenmarkt", "Meir", "place de l'Église"),
        towns=(("1000", "Bruxelles"), ("9000", "Gent"), ("2000", "Antwerpen"), ("4000", "Liège")),
    ),
    "IE": Country(
        currency="EUR", bank="XXXX999999", digits=8, example="IE29AIBK93115212345678",
        first=("Siobhán", "Pádraig", "Áine", "Ciarán", "Máire"),
        last=("Ó Briain", "Ní Mhurchú", "O'Doherty", "Mac Giolla", "Breathnach"),
        streets=("Grafton Street", "Patrick Street", "Eyre Square", "Thomond Road"),
        towns=(("D02 KX03", "Dublin"), ("T12 W8AF", "Cork"), ("H91 E2K7", "Galway"), ("V94 K5R6", "Limerick")),
    ),
    "PT": Country(
        currency="EUR", bank="99999999", digits=13, example="PT50000201231234567890154",
        first=("João", "Conceição", "Inês", "Simão", "Lourenço"),
        last=("Araújo", "Magalhães", "Guimarães", "da Conceição", "Brandão"),
        streets=("rua Augusta", "avenida da Liberdade", "largo do Chão", "travessa da Queimada"),
        towns=(("1100-053", "Lisboa"), ("4000-322", "Porto"), ("3000-150", "Coimbra"), ("4700-026", "Braga")),
    ),
    "FI": Country(
        currency="EUR", bank="999999", digits=8, example="FI2112345600000785",
        first=("Päivi", "Väinö", "Äijö", "Sirkka", "Jyrki"),
        last=("Hämäläinen", "Pöyhönen", "Äyräväinen", "Virtanen", "Öhman"),
        streets=("Mannerheimintie", "Hämeenkatu", "Itäinen rantakatu", "Yliopistonkatu"),
        towns=(("00100", "Helsinki"), ("33100", "Tampere"), ("20700", "Turku"), ("40100", "Jyväskylä")),
    ),
    "CH": Country(
        currency="CHF", bank="99999", digits=12, example="CH9300762011623852957",
        first=("Rösli", "Beat", "Corinne", "Jürg", "Mélanie", "Flurin"),
        last=("Zürcher", "Grünenfelder", "Bühlmann", "Rüegg", "Chevallaz-Müller", "Caprez"),
        streets=("Bahnhofstrasse", "rue du Rhône", "Bärengasse", "via Nassa"),
        towns=(("8001", "Zürich"), ("1204", "Genève"), ("3011", "Bern"), ("6900", "Lugano")),
    ),
    "GB": Country(
        currency="GBP", bank="XXXX999999", digits=8, example="GB29NWBK60161331926819",
        first=("Niamh", "Rhys", "Zoë", "Alasdair", "Chloë"),
        last=("O'Hagan", "Fotheringham-Smythe", "Llewellyn", "Brontë-Hill", "MacAulay"),
        streets=("Cowgate", "Deansgate", "St Mary Axe", "Castle Arcade"),
        towns=(("EH1 1JH", "Edinburgh"), ("M3 4LQ", "Manchester"), ("EC3A 8BF", "London"), ("CF10 1BU", "Cardiff")),
    ),
    "SE": Country(
        currency="SEK", bank="999", digits=17, example="SE4550000000058398257466",
        first=("Åsa", "Göran", "Märta", "Örjan", "Linnéa"),
        last=("Ångström", "Sjögren", "Åkerblom", "Björklöf", "Hägg"),
        streets=("Sveavägen", "Östra Hamngatan", "Stortorget", "Väderkvarnsgatan"),
        towns=(("111 57", "Stockholm"), ("411 10", "Göteborg"), ("211 22", "Malmö"), ("753 26", "Uppsala")),
    ),
    "US": Country(
        currency="USD", clearing="999999992",
        first=("José", "Shaniqua", "Chloé", "Renée", "Tyler"), last=("Peñalosa", "O'Rourke", "Björkman", "Fairweather"),
        streets=("Elm Street", "Lakeshore Drive", "Cañon Perdido Street"),
        towns=(("60601", "Chicago"), ("93101", "Santa Barbara"), ("02108", "Boston")), region="IL",
    ),
    "JP": Country(
        currency="JPY", clearing="9999999", first=("Yuki", "Haruto", "Sakura"), last=("Ōtani", "Kōno", "Satō"),
        streets=("Sakura-dōri", "Omotesandō"), towns=(("150-0001", "Tōkyō"), ("530-0001", "Ōsaka")),
    ),
    "AU": Country(
        currency="AUD", clearing="999999", first=("Bruce", "Kirra", "Zali"), last=("Wattleworth", "McKenzie-Ng"),
        streets=("Spencer Street", "Queen Street"), towns=(("3000", "Melbourne"), ("4000", "Brisbane")), region="VIC",
    ),
}  # fmt: skip
"""Who is insured where. Clearing codes and bank codes of nines are given to nobody."""

_EURO: Final = ("DE", "DE", "DE", "DE", "FR", "FR", "NL", "AT", "ES", "IT", "BE", "IE", "PT", "FI", "CH", "GB")
_ABROAD: Final = ("CH", "CH", "GB", "GB", "SE", "US", "US", "JP", "AU")
_PREMIUMS: Final = ("DE", "DE", "FR", "AT", "NL", "CH", "GB", "SE")
_BUSINESS: Final = ("household", "motor", "liability", "travel", "legal", "health")
_HANDLERS: Final = ("team-nord", "team-süd", "équipe-ouest", "back-office")

BANK_WORDS: Final = (
    "RJCT-AC04", "RJCT-AC04", "RJCT-AC06", "RJCT-MS03", "RJCT-RR04", "RJCT-BE05", "RTRN-AC06", "RTRN-AC04", "RTRN-MD07",
    "RTRN-MS02", "SILENT", "SILENT", "SILENT",
)  # fmt: skip
"""Last words of creditors' names that the rehearsal bank obeys (docs/rails/bank-simulator.md)."""
SLOW_WORDS: Final = ("TIMEOUT-AFTER", "TIMEOUT-AFTER", "TIMEOUT-AFTER", "SLOW-DRIP")
PROVIDER_WORDS: Final = (
    *("REFUSE-AM04",) * 7, *("REFUSE-AC04",) * 3, "REFUSE-MD01", *("PENDING-SETTLE",) * 8, *("PENDING-FAIL",) * 3,
    *("ERROR-200",) * 3, *("DUPLICATE-CALLBACK",) * 3, *("OUT-OF-ORDER",) * 3,
)  # fmt: skip
"""Words in remittance texts that the rehearsal provider obeys (docs/rails/simulator.md); the slow ones stand apart."""
NOT_YET_DUE: Final = 6
PREMIUMS: Final = 250
ABROAD: Final = 70


def make(count: int) -> Iterator[Line]:
    """The first `count` lines."""
    for start in range(0, count, BLOCK):
        yield from _block(start // BLOCK)[: count - start]


def write(lines: Iterable[Line], to: Callable[[str], object]) -> None:
    """Write lines as CSV (RFC 4180, but for line feeds alone); a line may hold one value too many or too few."""
    rows = csv.writer(_Writer(to), lineterminator="\n")
    rows.writerow(COLUMNS)
    for line in lines:
        values = [line[column] for column in COLUMNS]
        if "cut" in line:
            values = values[:-9]
        if "more" in line:
            values.append(line["more"])
        rows.writerow(values)


class _Writer:
    def __init__(self, to: Callable[[str], object]) -> None:
        self.write = to


def _block(number: int) -> list[Line]:
    chance = Random(2026 + number)  # noqa: S311  # made-up data
    payouts = BLOCK - PREMIUMS - ABROAD - len(WRONG)
    kinds: list[Callable[[Random, int], Line]] = [_euro] * payouts + [_abroad] * ABROAD + [_premium] * PREMIUMS
    chance.shuffle(kinds)
    lines = [kind(chance, number * BLOCK + place) for place, kind in enumerate(kinds, start=1)]
    _ask_for_trouble(chance, lines)
    for place, spoil in enumerate(WRONG):
        wrong = _euro(chance, number * BLOCK + len(kinds) + place + 1)
        spoil(wrong, lines)
        lines.insert((place + 1) * BLOCK // (len(WRONG) + 1), wrong)
    return lines


def _ask_for_trouble(chance: Random, lines: list[Line]) -> None:
    """Have some lines ask the rehearsal bank and the rehearsal provider to misbehave, and some wait for their day."""
    in_file = [line for line in lines if _goes_by_file(line)]
    others = [line for line in lines if not _goes_by_file(line)]
    for word, line in zip(BANK_WORDS, chance.sample(in_file, len(BANK_WORDS)), strict=True):
        line["accountHolder"] += f" {word}"
    # What keeps us waiting is old and stands at the beginning, so that we wait for all of it at once.
    for word, line in zip(SLOW_WORDS, others, strict=False):
        line["metadata.remittanceInformation"] += f" SIM:{word}"
        line["settledByDate"] = (FIRST_DAY - timedelta(days=7)).isoformat()
    for word, line in zip(PROVIDER_WORDS, chance.sample(others[len(SLOW_WORDS) :], len(PROVIDER_WORDS)), strict=True):
        line["metadata.remittanceInformation"] += f" SIM:{word}"
    quiet = [line for line in lines if "SIM:" not in line["metadata.remittanceInformation"]]
    for line in chance.sample(quiet, NOT_YET_DUE):
        line["settledByDate"] = NOT_YET.isoformat()


def _goes_by_file(line: Line) -> bool:
    return line["direction"] == "CREDIT" and line["currency"] == "EUR"


def _euro(chance: Random, number: int) -> Line:
    code = chance.choice(_EURO)
    return _payout(chance, number, code, "EUR")


def _abroad(chance: Random, number: int) -> Line:
    code = chance.choice(_ABROAD)
    return _payout(chance, number, code, COUNTRIES[code].currency)


def _payout(chance: Random, number: int, code: str, currency: str) -> Line:
    claim = f"CL-2026-{number:06}"
    policy = _policy(chance)
    return _line(chance, code) | {
        "orderRef": claim,
        "instructionRef": f"{claim}-1",
        "customerRef": f"K-{100_000 + chance.randrange(600_000)}",
        "direction": "CREDIT",
        "amount": _claim_amount(chance, currency),
        "currency": currency,
        "metadata.claimNumber": claim,
        "metadata.policy": policy,
        "metadata.remittanceInformation": f"Claim {claim}, policy {policy}",
    }


def _premium(chance: Random, number: int) -> Line:
    code = chance.choice(_PREMIUMS)
    policy = _policy(chance)
    return _line(chance, code) | {
        "orderRef": f"PR-2026-{number:06}",
        "instructionRef": f"PR-2026-{number:06}-09",
        "customerRef": f"K-{100_000 + chance.randrange(600_000)}",
        "direction": "DEBIT",
        "amount": f"{chance.randrange(9_00, 240_00) / 100:.2f}",
        "currency": COUNTRIES[code].currency,
        "metadata.policy": policy,
        "metadata.remittanceInformation": f"Premium September 2026, policy {policy}",
    }


def _line(chance: Random, code: str) -> Line:
    country = COUNTRIES[code]
    post_code, town = chance.choice(country.towns)
    line = dict.fromkeys(COLUMNS, "") | {
        "country": code,
        "settledByDate": (FIRST_DAY + timedelta(days=chance.randrange(DAYS))).isoformat(),
        "accountHolder": f"{chance.choice(country.first)} {chance.choice(country.last)}",
        "street": chance.choice(country.streets),
        "building": str(chance.randrange(1, 180)) + chance.choice(("", "", "", "a", "b")),
        "postCode": post_code,
        "town": town,
        "region": country.region,
        "addressCountry": code,
        "metadata.lineOfBusiness": chance.choice(_BUSINESS),
        "metadata.handler": chance.choice(_HANDLERS),
    }
    number = "".join(str(chance.randrange(10)) for _ in range(country.digits or 9))
    if country.clearing:
        line |= {"accountNumber": number, "bankCode": country.clearing}
    else:
        line["iban"] = country.example if chance.random() < 0.02 else _iban(code, country.bank + number)
    return line


def _policy(chance: Random) -> str:
    return f"{chance.choice(('HH', 'KF', 'HP', 'RS'))}-{chance.randrange(10, 99)}-{chance.randrange(100_000, 999_999)}"


def _claim_amount(chance: Random, currency: str) -> str:
    """Many small claims, few large ones."""
    cents = int(60_00 + 180_00 * chance.random() / (1.004 - chance.random()))
    return str(cents) if currency == "JPY" else f"{cents // 100}.{cents % 100:02}"


def _iban(country: str, account: str) -> str:
    """An IBAN with its check digits (ISO 13616; ISO 7064 MOD 97-10)."""
    digits = "".join(str(int(character, 36)) for character in f"{account}{country}00")
    return f"{country}{98 - int(digits) % 97:02}{account}"


# What is wrong, one kind a line


def _set(**values: str) -> Callable[[Line, list[Line]], None]:
    def spoil(line: Line, _: list[Line]) -> None:
        line.update(values)

    return spoil


def _wrong_check_digits(line: Line, _: list[Line]) -> None:
    line["iban"] = line["iban"][:2] + f"{(int(line['iban'][2:4]) + 1) % 97:02}" + line["iban"][4:]


def _one_digit_short(line: Line, _: list[Line]) -> None:
    line["iban"] = line["iban"][:-1]


def _same_again(line: Line, lines: list[Line]) -> None:
    line.update(next(other for other in lines if _goes_by_file(other) and "twice" not in other))
    next(other for other in lines if other["instructionRef"] == line["instructionRef"])["twice"] = "yes"
    line["twice"] = "yes"


def _reference_of_another(line: Line, lines: list[Line]) -> None:
    first = next(other for other in lines if _goes_by_file(other) and "twice" not in other)
    first["twice"] = "yes"
    line.update(orderRef=first["orderRef"], instructionRef=first["instructionRef"])


def _iban_and_number(line: Line, _: list[Line]) -> None:
    line.update(accountNumber="532013000", bankCode="99999999")


WRONG: Final[tuple[Callable[[Line, list[Line]], None], ...]] = (
    _wrong_check_digits,
    _one_digit_short,
    _set(iban="XX12345678901234567890"),
    _set(iban=""),
    _set(iban="", accountNumber="12345678"),
    _iban_and_number,
    _set(bic="NOT-A-BIC"),
    _set(accountHolder=""),
    _set(town=""),
    _set(currency="JPY", amount="12500.50"),
    _set(amount="118.505"),
    _set(amount="NaN"),
    _set(amount="Infinity"),
    _set(amount="1.2e3"),
    _set(amount="1.250,00"),
    _set(amount="€ 420.00"),
    _set(amount=""),
    _set(amount="0.00"),
    _set(amount="-75.00"),
    _set(amount="1234567890123.00"),
    _set(direction="credit"),
    _set(direction="PAYOUT"),
    _set(direction=""),
    _set(currency="EUX"),
    _set(currency="EURO"),
    _set(currency=""),
    _set(country="ZZ"),
    _set(country="DEU"),
    _set(orderRef=""),
    _set(instructionRef=""),
    _set(customerRef=""),
    _set(instructionRef="CL/2026/7 §1"),
    _set(instructionRef="CL-2026-" + "7" * 50),
    _set(customerRef="Kunde Nr. 8"),
    _same_again,
    _reference_of_another,
    _set(settledByDate="2026-02-30"),
    _set(settledByDate="18.09.2026"),
    _set(settledByDate=""),
    _set(**{"metadata.handler": "see the attached correspondence " * 16}),
    _set(cut="yes"),
    _set(more="one value too many"),
    _set(amount="12,50", currency="euro", direction="out", settledByDate="tomorrow"),
)


def main() -> None:
    """Write to standard output."""
    parser = argparse.ArgumentParser(description="Make a claims system's export, some of it wrong.")
    parser.add_argument("--lines", type=int, default=BLOCK, help="how many lines besides the header (1000)")
    sys.stdout.reconfigure(encoding="utf-8", newline="\n")  # type: ignore[union-attr]  # a text stream, unless replaced
    write(make(parser.parse_args().lines), sys.stdout.write)


if __name__ == "__main__":
    main()

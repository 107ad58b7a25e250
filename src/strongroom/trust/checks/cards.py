"""ENC-4: card numbers exist in the card vault and nowhere else.

Numbers that nobody has, fresh in every run, go the way of real ones: through a form's session and with an access token,
rightly and wrongly, into a customer's vault and out to a provider. Then they are looked for in every form, and with
them anything that looks like a card number: in every column of every database, the data directory, the write-ahead log,
a base backup, what the processes wrote to their logs, and the memory of every process but the vault's own and the
provider's. What must be found there (the run's access token, its API keys) shows that the search sees.

Besides: that neither a core file nor swap has or gets the memory of the vault and of those who hold keys; who may get
into which database, that the vault's inner door lets in nobody without a certificate of the right name, and that a
security code is good once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from strongroom.database.databases import APP_ROLE, CARDS, CARDS_ROLE, DIRECTORY, database_name
from strongroom.kernel.card_numbers import luhn_digit
from strongroom.kernel.errors import StrongroomError
from strongroom.outbound import Answer, NoAnswer, NotSent
from strongroom.trust.card_scan import CardSearch, log_files_of, memory_of
from strongroom.trust.checks.at_rest import search_files
from strongroom.trust.client import Caller, Refused
from strongroom.trust.columns import search_columns
from strongroom.trust.exposure import find_swap, judge, read_exposure
from strongroom.trust.searching import Pattern, text_patterns
from strongroom.trust.stage import stage
from strongroom.trust.verdicts import CannotTell, Figure, Findings
from strongroom.trust.workbench import Workbench
from strongroom.vault.card_client import NAME, ForwardRequest, inner_door

CUSTOMER: Final = "/v1/customer-vault/prove-cards"
_UNISSUED: Final = "400000"
"""A range that processors use for test numbers."""
_YEARS: Final = 3
_TEMPLATE: Final = '{"number":"{{number}}","expiry":"{{expiry_month}}{{expiry_year}}","cvv":"{{cvv}}"}'
_MIB: Final = 1 << 20
CRYPTOPERIOD: Final = timedelta(days=365)
"""For how long a key of the card vault may be used for what is written (docs/cards.md)."""


@dataclass(frozen=True, slots=True)
class CardCanary:
    """A number that exists nowhere else."""

    number: str

    @property
    def patterns(self) -> Sequence[Pattern]:
        """Every form in which it is looked for."""
        groups = [self.number[at : at + 4] for at in range(0, len(self.number), 4)]
        printed = [between.join(groups) for between in (" ", "-")]
        return [
            *text_patterns("card number", self.number),
            *(Pattern("card number in groups", text.encode()) for text in printed),
            *(Pattern("card number in groups, UTF-16", text.encode("utf-16-le")[:-1]) for text in printed),
        ]


def draw_card() -> CardCanary:
    """A fresh one."""
    body = _UNISSUED + f"{secrets.randbelow(10**9):09}"
    return CardCanary(body + luhn_digit(body))


async def check_cards(bench: Workbench) -> Figure:
    """See the module."""
    if bench.server is None:
        raise CannotTell("The database is on a server of your own, whose files can't be read from here.")
    if bench.cards is None:
        raise CannotTell("Start `strongroom serve` first: memory is looked through while the parts are processes.")
    canaries = [draw_card(), draw_card(), draw_card()]
    patterns = [pattern for canary in canaries for pattern in canary.patterns]
    findings = Findings()
    async with stage(bench) as scene:
        caller = await scene.caller(scene.here)
        visitor = _Visitor(bench, caller)
        await _traffic(findings, bench, visitor, canaries)
        await _check_separation(findings, bench)
        async with bench.admin(DIRECTORY) as connection:
            await connection.execute("checkpoint")
        known = [scene.here.key.public_key.bytes]
        swap = _check_exposure(findings, bench)
        memory, logs = await asyncio.to_thread(_search_processes, findings, bench, patterns, caller.token.reveal())
        searches = [
            await search_columns(bench, findings, CardSearch("every column", patterns, known)),
            *await asyncio.to_thread(search_files, bench, bench.server, patterns, known, CardSearch),
            memory,
            logs,
        ]
        await caller.done("DELETE", CUSTOMER)
    for search in searches:
        findings.expect(search.saw_everything, f"the search of {search.place} did not see what it has to see")
        for found in search.found:
            findings.breach(f"found: {found}")
    size = sum(search.size for search in searches)
    places = ", ".join(search.place for search in searches)
    return findings.figure(
        f"{len(canaries)} cards taken, shown, forwarded; {size // _MIB} MiB searched ({places}), 0 numbers found; "
        f"no core files, nothing in swap ({swap})"
    )


class _Visitor:
    """Somebody at the vault's public door."""

    def __init__(self, bench: Workbench, caller: Caller) -> None:
        assert bench.cards is not None  # noqa: S101  looked at before
        self._outbound = bench.outbound
        self._url = f"{bench.cards.url}/v1/cards"
        self.caller = caller
        self.year = bench.clock.now().year + _YEARS

    async def session(self) -> str:
        """A form's session."""
        opened = await self.caller.done("POST", f"{CUSTOMER}/card-session")
        return f"Session {opened['sessionToken']}"

    async def send(self, number: str, authorization: str, **more: object) -> Answer:
        """Send a card, whatever the answer."""
        sent = {"number": number, "expiryMonth": 12, "expiryYear": self.year, "holder": "Ada Sample", **more}
        headers = {
            "authorization": authorization,
            "x-account-id": str(self.caller.key.account_id),
            "x-tenant-id": str(self.caller.key.tenant_id),
            "content-type": "application/json",
        }
        return await self._outbound.request("POST", self._url, headers=headers, body=msgspec.json.encode(sent))

    async def take(self, number: str, authorization: str, **more: object) -> Any:
        """Send a card that has to be taken; what the vault says of it. Raises Refused."""
        answer = await self.send(number, authorization, **more)
        if answer.status != 201:
            raise Refused(f"the card vault answered {answer.status} to a card")
        return msgspec.json.decode(answer.body)


async def _traffic(findings: Findings, bench: Workbench, visitor: _Visitor, canaries: Sequence[CardCanary]) -> None:
    """Cards on every way in, what may be shown of them, and out to the provider."""
    by_form, by_key, refused = canaries
    session = await visitor.session()
    mistaken = await visitor.send(refused.number, session, expiryYear=visitor.year - 2 * _YEARS)
    findings.expect(mistaken.status == 400, f"a card that has expired was answered {mistaken.status}")
    taken = await visitor.take(by_form.number, session, cvv="123")
    again = await visitor.send(by_form.number, session)
    findings.expect(again.status == 401, f"a card session that was used was answered {again.status}")
    bearer = f"Bearer {visitor.caller.token.reveal()}"
    await visitor.take(by_key.number, bearer)
    for answer in (mistaken, again):
        told = any(canary.number.encode() in answer.body for canary in canaries)
        findings.expect(not told, "an error of the card vault tells the number")
    instrument = await visitor.caller.done(
        "POST", f"{CUSTOMER}/financial-instrument", {"type": "CARD", "cardToken": taken["token"]}
    )
    shown = by_form.number[:8] + "****" + by_form.number[-4:]
    findings.expect(
        instrument["details"]["maskedNumber"] == shown, "what is shown of a card isn't its first eight and last four"
    )
    await _forward(findings, bench, visitor, taken["token"])


async def _forward(findings: Findings, bench: Workbench, visitor: _Visitor, token: str) -> None:
    tenant = visitor.caller.key.tenant_id
    if bench.simulator is None or tenant is None:
        return
    reference = f"prove-{secrets.token_hex(8)}"

    def request(suffix: str) -> ForwardRequest:
        assert bench.simulator is not None  # noqa: S101  looked at before
        return ForwardRequest(
            reference=reference + suffix,
            token=token,
            method="POST",
            url=f"{bench.simulator.url}/prove-cards",
            content_type="application/json",
            body=_TEMPLATE,
        )

    sent = await bench.card_vault.forward(tenant, request(""))
    findings.expect(sent.state == "ANSWERED", f"a request to the provider simulator is {sent.state} ({sent.code})")
    try:
        await bench.card_vault.forward(tenant, request("-again"))
    except StrongroomError as error:
        findings.expect(error.code == "CVV_NOT_AVAILABLE", f"a second use of a security code ends in {error.code}")
    else:
        findings.breach("a security code was good for a second request")


async def _check_separation(findings: Findings, bench: Workbench) -> None:
    """Whose database is whose, and who is let in by the inner door."""
    async with bench.admin(DIRECTORY) as connection:
        pairs = [(APP_ROLE, CARDS), *((CARDS_ROLE, name) for name in bench.database_names)]
        for role, name in pairs:
            cursor = await connection.execute(
                "select has_database_privilege(%s, %s, 'connect')", (role, database_name(name))
            )
            row = await cursor.fetchone()
            findings.expect(row == (False,), f"{role} may connect to {database_name(name)}")
    async with bench.admin(CARDS) as connection:
        cursor = await connection.execute(
            "select count(*) from card_keys where state = 'ACTIVE' and created_at < %s",
            (bench.clock.now() - CRYPTOPERIOD,),
        )
        row = await cursor.fetchone()
        late = 0 if row is None else row[0]
        findings.expect(late == 0, f"{late} keys of the card vault are used beyond their year: rotate them")
    stranger = UUID(int=0)
    try:
        await bench.card_vault.open_session(stranger, "")
    except StrongroomError as error:
        findings.expect(error.code == "PROCESS_NOT_ALLOWED", f"a process of another name is answered {error.code}")
    else:
        findings.breach("a process of another name is let in by the card vault's inner door")
    port = bench.config.cards_inner_port
    async with inner_door(port, bench.config.keys_dir / "ca.pem", None) as nobody:
        try:
            answer = await nobody.request("GET", f"https://{NAME}:{port}/v1/tenants/{stranger}/cards/x")
        except (NotSent, NoAnswer):
            return
    findings.breach(f"the card vault's inner door answers {answer.status} to somebody without a certificate")


def _check_exposure(findings: Findings, bench: Workbench) -> str:
    """Whether the memory of who holds keys may get to a disk; says in words which swap there is."""
    swap = find_swap()
    vault = bench.card_processes()
    findings.expect(bool(vault), "no process of the card vault was found")
    for process in (*vault, *bench.processes()):
        is_apart = process in vault
        name = f"the card vault (process {process})" if is_apart else f"process {process}"
        for breach in judge(name, read_exposure(process), swap, is_apart=is_apart):
            findings.breach(breach)
    return f"swap on {', '.join(swap)}" if swap else "which is off"


def _search_processes(
    findings: Findings, bench: Workbench, patterns: Sequence[Pattern], token: str
) -> tuple[CardSearch, CardSearch]:
    """Memory and logs of everybody but the vault and the provider."""
    assert bench.server is not None  # noqa: S101  looked at before
    database = int((bench.server.data / "postmaster.pid").read_text().splitlines()[0])
    processes = [*bench.processes(), database]
    memory = CardSearch(f"memory of {len(processes)} processes", patterns, [token.encode()])
    for process in processes:
        before = memory.size
        try:
            memory.pieces(memory_of(process), f"memory of process {process}")
        except PermissionError:
            raise CannotTell(
                "The memory of other processes can't be read from here. Run `strongroom prove` as root, or allow "
                "ptrace to the same user."
            ) from None
        findings.expect(memory.size > before, f"nothing was seen of the memory of process {process}")
    logs = CardSearch("logs", patterns)
    for path, name in log_files_of(processes).items():
        logs.file(path, name)
    return memory, logs

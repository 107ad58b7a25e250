"""Sending files through a running installation's API, over TLS."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from strongroom.cli import sending
from strongroom.cli.client import Client, Key
from strongroom.cli.payment_file import PaymentFile
from strongroom.cli.sending import Schemes, Sent, send
from strongroom.cli.tenant_setup import Setup, make_tenant, read_setup, write_setup
from strongroom.kernel.errors import Refused, Unauthenticated, Unavailable
from strongroom.kernel.secret import Secret
from tests.fixtures.platform import Server

COLUMNS = (
    "orderRef,instructionRef,customerRef,direction,amount,currency,country,settledByDate,accountHolder,iban,"
    "metadata.claimNumber"
)
NOT_YET = "2036-03-31"
"""So that nobody pays while we look."""


def line(number: int, **other: str) -> str:
    values = {
        "orderRef": f"C-{number}",
        "instructionRef": "1",
        "customerRef": f"K-{number}",
        "direction": "CREDIT",
        "amount": "10.01",
        "currency": "EUR",
        "country": "DE",
        "settledByDate": NOT_YET,
        "accountHolder": "Käthe Müßig",
        "iban": "DE89370400440532013000",
        "metadata.claimNumber": f"CL-{number}",
    }
    return ",".join((values | other).values())


@pytest.fixture(scope="module")
def account(server: Server) -> Key:
    done = server.run("accounts", "create", "--name", "Fjord & Alpine", "--json")
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout)
    return Key(
        account_id=opened["accountId"],
        public_key=opened["publicKey"],
        private_key=Secret(opened["privateKey"]),
    )


@pytest.fixture
async def setup(server: Server, account: Key) -> Setup:
    """A new tenant."""
    return await make_tenant(server.url, account, trust=server.ca_file)


async def sent(server: Server, setup: Setup, folder: Path, *lines: str, header: str = COLUMNS) -> Sent:
    """Send these lines below the header."""
    path = folder / "claims.csv"
    path.write_text("\n".join([header, *lines]), encoding="utf-8")
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        return await send(client, PaymentFile(path), setup.schemes, folder / "refused.csv")


def refused(folder: Path) -> list[dict[str, str]]:
    with (folder / "refused.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


async def test_schemes_follow_the_direction(server: Server, setup: Setup, tmp_path: Path) -> None:
    done = await sent(server, setup, tmp_path, line(1), line(2, direction="DEBIT"))
    assert (done.lines, done.accepted, done.refused) == (2, 2, 0)
    assert dict(done.sums) == {("CREDIT", "EUR"): 1001, ("DEBIT", "EUR"): 1001}
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        for number, scheme in ((1, setup.schemes.payout), (2, setup.schemes.collect)):
            instruction = await client.get(f"/v1/order-management/C-{number}/instruction/1")
            assert instruction["scheme"]["schemeId"] == scheme
            assert instruction["status"] == "READY"
            assert instruction["metadata"] == {"claimNumber": f"CL-{number}"}


async def test_schemes_that_the_file_names_stay(server: Server, setup: Setup, tmp_path: Path) -> None:
    header = COLUMNS + ",schemeId"
    done = await sent(server, setup, tmp_path, line(1) + "," + setup.schemes.payout, line(2) + ",", header=header)
    assert done.accepted == 2
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        assert (await client.get("/v1/order-management/C-2/instruction/1"))["status"] == "INCOMPLETE"


async def test_what_is_not_read_is_not_sent(server: Server, setup: Setup, tmp_path: Path) -> None:
    """Refused lines that were mended can be sent with the reasons still beside them."""
    header = f"line,errorCodes,reasons,{COLUMNS},internalNote"
    assert (await sent(server, setup, tmp_path, f"7,X,why,{line(1)},secret", header=header)).accepted == 1
    path = tmp_path / "claims.csv"
    file = PaymentFile(path)
    content = sending._csv(file.columns, setup.schemes, list(file.lines())).decode()
    assert content.splitlines()[0] == f"{COLUMNS},schemeId"
    assert "secret" not in content


async def test_one_bad_line_among_many(
    server: Server, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with lines, all others are accepted, across the parts that a file is sent in."""
    monkeypatch.setattr(sending, "PART_LINES", 100)
    lines = [line(number) for number in range(350)]
    lines[120] = line(120, iban="DE88370400440532013000")
    lines[121] = '"' + line(121)
    lines[199] = line(199).rpartition(",")[0]
    lines[200] = line(200, amount="1e3", currency="EU", direction="credit")
    lines[349] = line(348)
    done = await sent(server, setup, tmp_path, *lines)
    assert (done.lines, done.accepted, done.refused, len(done.jobs)) == (350, 345, 5, 4)
    assert done.refusals == {
        "IBAN_IS_INVALID": 1,
        "CSV_LINE_INVALID": 2,
        "DIRECTION_IS_NOT_RECOGNISED": 1,
        "INSTRUCTION_ALREADY_EXISTS": 1,
    }
    assert done.sums["CREDIT", "EUR"] == 345 * 1001
    rows = refused(tmp_path)
    assert [row["line"] for row in rows] == ["122", "123", "201", "202", "351"]
    assert rows[0]["iban"] == "DE88370400440532013000"
    assert rows[0]["accountHolder"] == "Käthe Müßig"
    assert "check digits" in rows[0]["reasons"]
    assert rows[3]["errorCodes"] == "DIRECTION_IS_NOT_RECOGNISED AMOUNT_IS_INVALID CURRENCY_LENGTH_OUT_OF_RANGE"
    assert rows[4]["errorCodes"] == "INSTRUCTION_ALREADY_EXISTS"


async def test_refused_lines_hold_no_formulas_and_can_be_sent_again(
    server: Server, setup: Setup, tmp_path: Path
) -> None:
    formula = '=HYPERLINK(""http://x"")'
    harmful = line(1, amount="-5.00", accountHolder="+1-2", **{"metadata.claimNumber": f'"{formula}"'})
    assert (await sent(server, setup, tmp_path, harmful, "@SUM(1)")).refused == 2
    first, second = refused(tmp_path)
    assert (first["amount"], first["accountHolder"]) == ("-5.00", "'+1-2")
    assert first["metadata.claimNumber"] == '\'=HYPERLINK("http://x")'
    assert second["orderRef"] == "'@SUM(1)"

    again = tmp_path / "again"
    again.mkdir()
    (again / "claims.csv").write_bytes((tmp_path / "refused.csv").read_bytes())
    file = PaymentFile(again / "claims.csv")
    assert (file.ignored, list(next(file.lines()).values)[-1]) == ([], '=HYPERLINK("http://x")')
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        assert (await send(client, file, setup.schemes, again / "refused.csv")).refused == 2
    assert list(refused(again)[0]) == list(first)
    assert refused(again)[0] | {"line": "2"} == first

    mended = (again / "refused.csv").read_text(encoding="utf-8").replace("-5.00", "5.00").splitlines()[:2]
    (again / "claims.csv").write_text("\n".join(mended), encoding="utf-8")
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        done = await send(client, PaymentFile(again / "claims.csv"), setup.schemes, again / "refused.csv")
        assert (done.accepted, done.refused) == (1, 0)
        instruction = await client.get("/v1/order-management/C-1/instruction/1")
    assert instruction["metadata"] == {"claimNumber": '=HYPERLINK("http://x")'}


async def test_the_same_file_again_makes_nothing_twice(server: Server, setup: Setup, tmp_path: Path) -> None:
    lines = [line(1), line(2), line(3, amount="NaN")]
    first = await sent(server, setup, tmp_path, *lines)
    again = await sent(server, setup, tmp_path, *lines)
    assert (first.accepted, first.refused, first.jobs) == (again.accepted, again.refused, again.jobs) != (0, 0, [])
    more = await sent(server, setup, tmp_path, *lines, line(4))
    assert (more.accepted, more.refusals) == (1, {"INSTRUCTION_ALREADY_EXISTS": 2, "AMOUNT_IS_INVALID": 1})


async def test_an_upload_that_broke_off_goes_on(server: Server, setup: Setup, tmp_path: Path) -> None:
    """A process that died after some parts is followed by one that sends the whole file again."""
    path = tmp_path / "claims.csv"
    path.write_text("\n".join([COLUMNS, *(line(number) for number in range(30))]), encoding="utf-8")

    class Died(Exception):
        pass

    def die(_: Sent) -> None:
        raise Died

    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        with pytest.raises(Died):
            await send(client, PaymentFile(path), setup.schemes, tmp_path / "refused.csv", die)
        done = await send(client, PaymentFile(path), setup.schemes, tmp_path / "refused.csv")
    assert (done.accepted, done.refused) == (30, 0)


async def test_a_file_without_lines(server: Server, setup: Setup, tmp_path: Path) -> None:
    done = await sent(server, setup, tmp_path)
    assert (done.lines, done.accepted, done.refused, done.jobs) == (0, 0, 0, [])


async def test_refusals_of_the_api_are_said_with_its_codes(server: Server, setup: Setup) -> None:
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        with pytest.raises(Refused) as caught:
            await client.get("/v1/order-management/none")
        assert caught.value.code == "ORDER_NOT_FOUND"
        with pytest.raises(Refused) as caught:
            await client.post("/v1/order-management", {"orderRef": "x y"})
        assert caught.value.code == "ORDER_REF_CONTAINS_INVALID_CHARACTERS"


async def test_a_wrong_key_is_refused(server: Server, setup: Setup) -> None:
    stranger = Key(
        account_id=setup.key.account_id,
        tenant_id=setup.key.tenant_id,
        public_key=setup.key.public_key,
        private_key=Secret("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    )
    async with Client(server.url, stranger, trust=server.ca_file) as client:
        with pytest.raises(Unauthenticated):
            await client.get("/v1/tenant")


async def test_a_certificate_that_nobody_vouches_for_is_not_spoken_to(server: Server, setup: Setup) -> None:
    async with Client(server.url, setup.key, trust=None) as client:
        with pytest.raises(Unavailable) as caught:
            await client.request("GET", "/v1/tenant")
    assert caught.value.code == "OUTBOUND_TLS_FAILED"


async def test_a_token_is_renewed_before_it_ends(server: Server, setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token serves many requests; with less than a minute left a new one is fetched."""
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        await client.get("/v1/tenant")
        first = client._token
        await client.get("/v1/tenant")
        assert client._token == first
        monkeypatch.setattr("strongroom.cli.client.RENEWED_BEFORE_S", 3600.0)
        await client.get("/v1/tenant")
        assert client._token != first


async def test_a_token_that_is_not_taken_any_more_is_replaced_once(server: Server, setup: Setup) -> None:
    async with Client(server.url, setup.key, trust=server.ca_file) as client:
        await client.get("/v1/tenant")
        client._token = "not.a.token"
        assert (await client.get("/v1/tenant"))["tenantId"] == setup.key.tenant_id


def test_a_setup_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    key = Key(account_id="a", tenant_id="t", public_key="p", private_key=Secret("s"))
    path = tmp_path / "rehearsal.json"
    write_setup(path, Setup(key=key, schemes=Schemes(collect="C", payout="P")))
    assert path.stat().st_mode & 0o777 == 0o600
    found = read_setup(path)
    assert (found.key.public_key, found.key.private_key.reveal()) == ("p", "s")
    assert found.schemes == Schemes(collect="C", payout="P")

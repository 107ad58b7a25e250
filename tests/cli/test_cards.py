"""`strongroom cards`, beside a platform that is being served: keys, the root, masks, cards moved between tenants."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from typer.testing import CliRunner

from strongroom.cli import app
from strongroom.kernel.errors import StrongroomError, Unavailable
from tests.fixtures.platform import Client, Server
from tests.vault.cards.numbers import ALL, AMEX, VISA, card

MANUAL = Path(__file__).parents[2] / "docs" / "cards.md"
COMMANDS = re.compile(r"<!-- commands -->\n```\n(.*?)```", re.DOTALL)
PASSPHRASE = "correct horse battery staple"


@dataclass
class House:
    """A tenant with two keys that may move cards, at the running server."""

    server: Server
    tenant: Client
    folder: Path

    def told(self, *arguments: str) -> Any:
        """What a command says as data, having succeeded."""
        printed = self.printed(*arguments, "--json")
        assert not set(ALL) & set(printed.replace('"', " ").split())
        return json.loads(printed)

    def printed(self, *arguments: str) -> str:
        """What a command prints, having succeeded. In this process: starting another takes longer than the command."""
        done = CliRunner().invoke(app, self.command(arguments))
        if done.exception is not None:
            raise done.exception
        assert done.exit_code == 0, done.stderr
        return done.stdout

    def command(self, arguments: tuple[str, ...]) -> list[str]:
        return ["cards", *arguments, "--data-dir", str(self.server.data_dir)]

    def refused(self, *arguments: str) -> str:
        """What a command says that fails."""
        with pytest.raises(StrongroomError) as refused:
            self.printed(*arguments)
        return refused.value.code

    @property
    def of_tenant(self) -> tuple[str, str]:
        return "--tenant", str(self.tenant.tenant_id)

    def key(self, name: str) -> str:
        return str(self.folder / f"{name}.json")

    def take(self, *numbers: str) -> list[str]:
        return asyncio.run(self._take(numbers))

    async def _take(self, numbers: tuple[str, ...]) -> list[str]:
        tokens = []
        trust = ssl.create_default_context(cafile=self.server.ca_file)
        async with httpx.AsyncClient(base_url=self.server.url, verify=trust, timeout=40) as http:
            self.tenant.http = http
            for number in numbers:
                opened = (await self.tenant.post("/v1/customer-vault/c-1/card-session")).json()
                headers = {"authorization": f"Session {opened['sessionToken']}"}
                taken = await http.post(opened["url"], json=card(number, cvv=None), headers=headers)
                tokens.append(taken.json()["token"])
        return tokens


@pytest.fixture(scope="module")
def house(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("keys")
    opened = json.loads(server.run("accounts", "create", "--name", "Mover", "--json").stdout)

    async def make() -> Client:
        trust = ssl.create_default_context(cafile=server.ca_file)
        async with httpx.AsyncClient(base_url=server.url, verify=trust, timeout=40) as http:
            account = Client(
                http=http, account_id=opened["accountId"], public_key=opened["publicKey"],
                private_key=opened["privateKey"],
            )  # fmt: skip
            tenant, other = await account.new_tenant(), await account.new_tenant()
            for name, client in {"anna": tenant, "bert": tenant, "carla": other, "dora": other}.items():
                keep(await client.new_key("tenant-card-transfer"), folder / f"{name}.json")
            return tenant

    yield House(server, asyncio.run(make()), folder)
    structlog.reset_defaults()


def keep(client: Client, path: Path) -> None:
    names = {
        "accountId": client.account_id, "tenantId": client.tenant_id, "publicKey": client.public_key,
        "privateKey": client.private_key,
    }  # fmt: skip
    path.touch(mode=0o600)
    path.write_text(json.dumps(names))


def test_cards_are_listed_by_their_masks_and_deleted(house: House) -> None:
    one, other = house.take(VISA, AMEX)
    shown = {row["token"]: row["maskedNumber"] for row in house.told("list", *house.of_tenant)}
    assert shown[one] == "41111111****1111"
    assert house.told("delete", one, *house.of_tenant)["done"] is False
    assert house.told("delete", one, *house.of_tenant, "--yes")["done"] is True
    left = {row["token"] for row in house.told("list", *house.of_tenant)}
    assert other in left
    assert one not in left
    assert "CARD_NOT_FOUND" in house.refused("delete", one, *house.of_tenant, "--yes")


def test_keys_are_rotated_and_the_old_ones_destroyed(house: House) -> None:
    house.take(VISA)
    before = house.told("keys", "list", *house.of_tenant)
    planned = house.told("keys", "rotate", *house.of_tenant)
    assert (planned["done"], planned["tenants"]) == (False, 1)
    assert house.told("keys", "list", *house.of_tenant) == before
    for purpose, option in (("seal", []), ("fingerprint", ["--fingerprint"])):
        done = house.told("keys", "rotate", *house.of_tenant, *option, "--yes")
        assert (done["destroyed"], done["retiring"], done["purpose"]) == (1, 0, purpose)
        assert done["rows"] >= 1
    states = {(key["purpose"], key["version"]): key["state"] for key in house.told("keys", "list", *house.of_tenant)}
    assert states == {
        ("seal", 1): "DESTROYED", ("seal", 2): "ACTIVE", ("fingerprint", 1): "DESTROYED", ("fingerprint", 2): "ACTIVE",
    }  # fmt: skip
    assert not any(key["overdue"] for key in house.told("keys", "list"))
    assert "41111111****1111" in {row["maskedNumber"] for row in house.told("list", *house.of_tenant)}


def test_the_root_is_rotated_ended_and_put_under_a_passphrase(house: House, tmp_path: Path) -> None:
    house.take(VISA)
    assert house.told("root", "rotate")["done"] is False
    old = house.told("root", "show")["newest"]
    assert house.told("root", "rotate", "--yes")["newest"] == old + 1
    shown = house.told("root", "show")
    assert (shown["keys"][str(old)], shown["protected"]) == (0, False)
    assert "ROOT_VERSION_IN_USE" in house.refused("root", "end", str(old + 1), "--yes")
    assert house.told("root", "end", str(old), "--yes")["ended"] == old
    assert list(house.told("root", "show")["keys"]) == [str(old + 1)]
    file = tmp_path / "passphrase"
    file.touch(mode=0o600)
    file.write_text(PASSPHRASE)
    root = house.server.data_dir / "cards" / "root.key"
    assert house.told("root", "passphrase", "--file", str(file), "--yes")["protected"] is True
    assert json.loads(root.read_text())["scrypt"]
    assert house.told("root", "passphrase", "--remove", "--yes")["protected"] is False
    file.write_text("short")
    assert "PASSPHRASE_TOO_SHORT" in house.refused("root", "passphrase", "--file", str(file), "--yes")


def test_cards_move_to_another_vault_when_two_keys_say_so(house: House, tmp_path: Path) -> None:
    house.take(VISA, AMEX)
    receiver, parts = tmp_path / "receiver.jwk", tmp_path / "parts"
    receiver.write_text(house.printed("receiver-key", "--key", house.key("carla")))
    asking = ("export", "--key", house.key("anna"), "--receiver-key", str(receiver))
    assert house.told(*asking)["done"] is False
    out = house.told(*asking, "--yes")["transferId"]
    fetching = ("export", "--key", house.key("anna"), "--transfer", out, "--out", str(parts))
    assert "TRANSFER_STATE_CONFLICT" in house.refused(*fetching, "--yes")
    assert "TRANSFER_NEEDS_ANOTHER_PERSON" in house.refused("approve", out, "--key", house.key("anna"), "--yes")
    assert house.told("approve", out, "--key", house.key("bert"))["done"] is False
    assert house.told("approve", out, "--key", house.key("bert"), "--yes")["state"] == "APPROVED"
    sent = house.told(*fetching, "--yes")
    assert (sent["state"], sent["count"]) == ("COMPLETED", len(house.told("list", *house.of_tenant)))
    assert house.told(*fetching, "--yes") == sent
    told = ("--count", str(sent["count"]), "--digest", sent["digest"])
    coming = ("import", str(parts), "--key", house.key("carla"))
    assert "TRANSFER_FOLDER_DIFFERS" in house.refused(*coming, "--count", "1", "--digest", "0" * 64, "--yes")
    into = house.told(*coming, *told, "--yes")["transferId"]
    assert house.told("approve", into, "--key", house.key("dora"), "--yes")["state"] == "APPROVED"
    got = house.told(*coming, "--transfer", into, "--yes")
    assert (got["state"], got["count"], got["digest"]) == ("COMPLETED", sent["count"], sent["digest"])
    there = json.loads((house.folder / "carla.json").read_text())["tenantId"]
    assert house.told("list", "--tenant", there) == house.told("list", *house.of_tenant)
    assert house.told("transfer", into, "--key", house.key("dora"))["approvedBy"]
    first = parts / "part-00001.jwe"
    first.write_text(first.read_text() + "x")
    assert "TRANSFER_FOLDER_DIFFERS" in house.refused(*fetching, "--yes")


def test_a_transfer_is_called_off(house: House, tmp_path: Path) -> None:
    receiver = tmp_path / "receiver.jwk"
    receiver.write_text(house.printed("receiver-key", "--key", house.key("anna")))
    asked = house.told("export", "--key", house.key("anna"), "--receiver-key", str(receiver), "--yes")
    assert house.told("cancel", asked["transferId"], "--key", house.key("bert"), "--yes")["state"] == "CANCELLED"


def test_the_manual_s_commands_do_what_it_says(house: House, tmp_path: Path) -> None:
    [token] = house.take(VISA)
    passphrase, receiver = tmp_path / "passphrase", tmp_path / "receiver.jwk"
    passphrase.touch(mode=0o600)
    passphrase.write_text(PASSPHRASE)
    receiver.write_text(house.printed("receiver-key", "--key", house.key("anna")))
    places = {
        "TENANT": str(house.tenant.tenant_id), "TOKEN": token, "PASSPHRASE": str(passphrase), "ANNA": house.key("anna"),
        "BERT": house.key("bert"), "RECEIVER": str(receiver), "PARTS": str(tmp_path / "parts"),
    }  # fmt: skip
    lines = [line for block in COMMANDS.findall(MANUAL.read_text()) for line in block.splitlines()]
    assert len(lines) > 12
    for line in lines:
        words = shlex.split(line)[2:]
        printed = house.printed(*(places.get(word, word) for word in words))
        if words[0] == "export" and "--receiver-key" in words:
            places["TRANSFER"] = printed.split("cards approve ")[1].split()[0]
        elif words[0] == "export":
            told = house.told("transfer", places["TRANSFER"], "--key", house.key("anna"))
            places |= {"COUNT": str(told["count"]), "DIGEST": told["digest"]}
            assert f"--count {told['count']} --digest {told['digest']}" in printed


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("export", "--key", "KEY"), "TRANSFER_NOT_CLEAR"),
        (("export", "--key", "KEY", "--transfer", "0" * 8 + "-0000-0000-0000-" + "0" * 12), "TRANSFER_NOT_CLEAR"),
        (("import", "/nowhere", "--key", "KEY"), "TRANSFER_NOT_CLEAR"),
        (("import", "/nowhere", "--key", "KEY", "--count", "1", "--digest", "00"), "TRANSFER_FOLDER_DIFFERS"),
        (("export", "--key", "KEY", "--receiver-key", "/nowhere"), "RECEIVER_KEY_INVALID"),
        (("receiver-key", "--key", "/nowhere"), "API_KEY_FILE_INVALID"),
        (("receiver-key", "--key", "OPEN"), "API_KEY_FILE_UNSAFE"),
        (("root", "passphrase", "--remove", "--file", "/nowhere"), "PASSPHRASE_NOT_CLEAR"),
    ],
)
def test_what_makes_no_sense_is_refused(house: House, arguments: tuple[str, ...], code: str) -> None:
    open_to_all = house.folder / "open.json"
    open_to_all.touch(mode=0o644)
    files = {"KEY": house.key("anna"), "OPEN": str(open_to_all)}
    assert code in house.refused(*(files.get(each, each) for each in arguments))


def test_the_vault_has_to_be_up(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["cards", "root", "show", "--data-dir", str(tmp_path)])
    assert isinstance(done.exception, Unavailable)
    assert done.exception.code == "NOT_BEING_SERVED"

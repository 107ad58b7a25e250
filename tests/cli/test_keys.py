"""`strongroom keys`, beside a platform that is being served by two processes, with keys in a SoftHSM2 token."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from strongroom.assembly import Installation
from strongroom.database.databases import url_of
from strongroom.kernel.config import Config
from tests.api.paying import codes, make_account, make_order
from tests.fixtures.commands import run_command
from tests.fixtures.platform import Client, Server, opened, public_folder, started
from tests.vault.holders.conftest import MODULE, PIN

TOKEN = "acme"
KEY = "strongroom-claims"
KEYS = "/v1/tenant/encryption-keys"
WITHIN_S = 5.0
"""How long a disabled key may still be used anywhere."""
WORKER_WITHIN_S = 60.0
"""The worker looks after keys every 30 seconds."""
USER = f"{pwd.getpwuid(os.getuid()).pw_name}@command-line"


@dataclass
class House:
    """An installation that is served, and an account in it whose keys may be in the token."""

    server: Server
    account: dict[str, Any]

    def keys(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return self.server.run("keys", *arguments)

    def told(self, *arguments: str) -> Any:
        """What a command says as data, having succeeded."""
        done = self.keys(*arguments, "--json")
        assert (done.returncode, done.stderr) == (0, broken_holder(done)), done.stderr
        return json.loads(done.stdout)

    def hsm(self, act: str) -> str:
        program = Path(__file__).parents[1] / "vault" / "holders" / "token_admin.py"
        command = [sys.executable, "-P", str(program), str(MODULE), TOKEN, PIN, act, KEY]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


def broken_holder(done: subprocess.CompletedProcess[str]) -> str:
    """What is said of the section of holders.toml that has a mistake: every time, and nothing else."""
    [line] = done.stderr.splitlines(keepends=True)
    told = json.loads(line)
    assert (told["event"], told["level"], told["code"]) == ("keys.holder_left_out", "error", "HOLDERS_FILE_INVALID")
    assert "[wrong]" in told["message"]
    return line


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        (folder / "tokens").mkdir()
        settings = folder / "softhsm2.conf"
        settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\n")
        patch.setenv("SOFTHSM2_CONF", str(settings))
        init = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "110022"]
        subprocess.run(init, check=True, capture_output=True, timeout=30)
        server = Server(folder, "--processes", "2")
        told = server.run("accounts", "create", "--name", "Alpine Mutual", "--json")
        made = House(server, json.loads(told.stdout))
        made.hsm("make")
        write(server.data_dir / "keys" / "acme.pin", PIN)
        write(server.data_dir / "keys" / "holders.toml", holders(made.account["accountId"]))
        try:
            server.start()
            yield made
        finally:
            server.stop()


def write(path: Path, content: str) -> None:
    path.touch(0o600)
    path.write_text(content)


def holders(account: str) -> str:
    good = f'[hsm]\nkind = "pkcs11"\nmodule = "{MODULE}"\ntoken = "{TOKEN}"\npin_file = "acme.pin"\n'
    return f'{good}accounts = ["{account}"]\n\n[wrong]\nkind = "pkcs11"\naccounts = ["{account}"]\n'


@pytest.fixture
async def tenants(house: House) -> AsyncIterator[tuple[Client, Client]]:
    """Two new tenants of the account, at the served API, each with an account in its vault and an order."""
    context = ssl.create_default_context(cafile=house.server.ca_file)
    async with httpx.AsyncClient(base_url=house.server.url, verify=context, timeout=30) as http:
        account = Client(
            http=http,
            account_id=house.account["accountId"],
            public_key=house.account["publicKey"],
            private_key=house.account["privateKey"],
        )
        made = await account.new_tenant(), await account.new_tenant()
        for tenant in made:
            await make_account(tenant)
            await make_order(tenant)
        yield made


async def take(client: Client) -> httpx.Response:
    """What needs the customer's key."""
    body = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": "DE89370400440532013000"}
    return await client.post(f"/v1/customer-vault/c-{os.urandom(4).hex()}/financial-instrument", body)


async def until(status: int, attempt: Callable[[], Awaitable[httpx.Response]], times: int = 10) -> httpx.Response:
    """The answer when it has this status so many times in a row (so in each process), in the time that is promised."""
    deadline, row = time.monotonic() + WITHIN_S, 0
    while time.monotonic() < deadline or row:
        answer = await attempt()
        row = row + 1 if answer.status_code == status else 0
        if row == times:
            return answer
        await asyncio.sleep(0.02)
    raise AssertionError(f"not within {WITHIN_S} s, but {answer.status_code} {answer.text}")


def test_a_holder_described_wrongly_is_told_of_loudly_and_stops_nobody(house: House) -> None:
    told = [json.loads(line) for line in house.server.log.splitlines() if "holder_left_out" in line]
    assert len(told) >= 4  # the supervisor, two processes of the API, the worker
    assert {line["level"] for line in told} == {"error"}
    with house.server.http() as http:
        assert http.get("/ready").status_code == 200


async def test_the_key_that_signs_tokens_rotates_under_way(house: House, tenants: tuple[Client, Client]) -> None:
    tenant, _ = tenants

    async def published() -> list[str]:
        return [key["kid"] for key in (await tenant.http.get("/.well-known/jwks.json")).json()["keys"]]

    async def read() -> httpx.Response:
        return await tenant.http.get("/v1/tenant", headers=tenant.headers)

    [old] = await published()
    assert house.told("tokens", "rotate")["done"] is False
    assert await published() == [old]
    new = house.told("tokens", "rotate", "--yes")["keyId"]
    await until(200, read)
    assert "TOKEN_KEY_ROTATED_LATELY" in house.keys("tokens", "rotate", "--yes").stderr
    assert set(await published()) <= {old, new}
    last = house.told("tokens", "rotate", "--at-once", "--yes")["keyId"]
    await until(401, read)
    assert (await tenant.sign_in()).status_code == 201
    await until(200, read)
    assert await published() == [last]


async def test_keys_are_listed_and_shown(house: House, tenants: tuple[Client, Client]) -> None:
    tenant = str(tenants[0].tenant_id)
    listed = {each["tenantId"] or each["accountId"]: each for each in house.told("list")}
    assert {tenant, str(tenants[1].tenant_id), tenants[0].account_id} <= set(listed)
    shown = house.told("show", "--tenant", tenant)
    assert shown == listed[tenant]
    assert [(key["layer"], key["state"], key["source"]) for key in shown["scopeKeys"]] == [
        ("customer", "ACTIVE", "kept"), ("platform", "ACTIVE", "kept"),
    ]  # fmt: skip
    assert [key["layer"] for key in listed[tenants[0].account_id]["scopeKeys"]] == ["platform"]
    assert f"tenant {tenant}" in house.keys("list").stdout
    for_people = house.keys("show", "--account", tenants[0].account_id)
    assert (for_people.returncode, "platform" in for_people.stdout) == (0, True)


async def test_rotating_is_said_first_and_done_then(house: House, tenants: tuple[Client, Client]) -> None:
    tenant = ("--tenant", str(tenants[0].tenant_id))
    planned = house.told("rotate", *tenant, "--layer", "customer", "--key", "data")
    assert (planned["done"], planned["dataKeys"], planned["fields"]["financial_instruments"]) == (False, 1, 2)
    said = house.keys("rotate", *tenant, "--layer", "customer", "--key", "scope").stdout
    assert said.endswith("Nothing was done. Give --yes to do it.\n")
    keys = (await tenants[0].get(KEYS)).json()
    assert {key["version"] for key in (*keys["scopeKeys"], *keys["dataKeys"])} == {1}
    for key, kind in (("scope", "rewrap"), ("data", "re-encrypt")):
        done = house.told("rotate", *tenant, "--layer", "customer", "--key", key, "--yes")
        assert (done["kind"], done["version"], done["status"]) == (kind, 2, "DONE")
        assert done["done"] >= 1
    begun = house.told("rotate", *tenant, "--layer", "platform", "--key", "scope", "--yes", "--no-wait")
    assert begun["status"] == "RUNNING"
    deadline = time.monotonic() + WORKER_WITHIN_S
    while (await tenants[0].get(f"{KEYS}/rotations/{begun['rotationId']}")).json()["status"] == "RUNNING":
        assert time.monotonic() < deadline, "the worker doesn't do it"
        await asyncio.sleep(0.5)
    assert (await take(tenants[0])).status_code == 202


async def test_a_key_in_a_token_is_used_and_never_shown(house: House, tenants: tuple[Client, Client]) -> None:
    """Forbidden in the token, its fields are away in every process; allowed again, they are back."""
    holding, other = tenants
    tenant = ("--tenant", str(holding.tenant_id))
    attach = ("attach", *tenant, "--holder", "hsm", "--reference", KEY)
    planned = house.told(*attach)
    assert (planned["done"], planned["algorithm"], planned["extractable"]) == (False, "AES-256", False)
    assert (await holding.get(KEYS)).json()["scopeKeys"][0]["source"] == "kept"
    assert house.told(*attach, "--yes")["status"] == "DONE"
    tested = house.told("test", *tenant)
    assert (tested["extractable"], 0 < tested["milliseconds"] < 2000) == (False, True)
    await until(202, lambda: take(holding))
    house.hsm("forbid")
    try:
        refused = await until(503, lambda: take(holding))
        assert (codes(refused), refused.headers["retry-after"]) == (["KEY_UNAVAILABLE"], "1")
        assert (await take(other)).status_code == 202
        assert (await holding.get("/v1/order-management/o-1")).status_code == 200
        failed = house.keys("test", *tenant)
        assert (failed.returncode, "KEY_UNAVAILABLE: " in failed.stderr) == (1, True)
        found = house.keys("verify", *tenant, "--json")
        [verified] = json.loads(found.stdout)
        assert (found.returncode, verified["broken"], verified["away"] > 0) == (3, [], True)
    finally:
        house.hsm("allow")
    await until(202, lambda: take(holding))
    assert "STOLEN" not in house.hsm("steal")


async def test_disabling_is_known_to_every_process(house: House, tenants: tuple[Client, Client]) -> None:
    holding, other = tenants
    tenant = ("--tenant", str(holding.tenant_id))
    await until(202, lambda: take(holding))
    planned = house.told("disable", *tenant)
    assert (planned["done"], planned["fields"]["financial_instruments"] >= 1) == (False, True)
    assert (await take(holding)).status_code == 202
    assert house.told("disable", *tenant, "--yes")["state"] == "DISABLED"
    assert codes(await until(503, lambda: take(holding))) == ["KEY_UNAVAILABLE"]
    assert (await take(other)).status_code == 202
    assert house.told("enable", *tenant)["done"] is False
    assert house.told("enable", *tenant, "--yes")["state"] == "ACTIVE"
    await until(202, lambda: take(holding))


async def test_a_key_is_brought(house: House, tenants: tuple[Client, Client], tmp_path: Path) -> None:
    tenant = ("--tenant", str(tenants[0].tenant_id))
    pem, wrapped = tmp_path / "import.pem", tmp_path / "wrapped.bin"
    token = house.told("import", *tenant, "--public-key", str(pem))["importToken"]
    public = load_pem_public_key(pem.read_bytes())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    wrapped.write_bytes(public.encrypt(os.urandom(32), oaep))
    second = ("import", *tenant, "--token", token, "--wrapped", str(wrapped), "--algorithm", "RSAES_OAEP_SHA_256")
    assert house.told(*second)["done"] is False
    assert house.told(*second, "--yes")["status"] == "DONE"
    assert (await tenants[0].get(KEYS)).json()["scopeKeys"][1]["source"] == "imported"
    used = house.keys(*second, "--yes")
    assert (used.returncode, "IMPORT_USED: " in used.stderr) == (1, True)
    assert (await take(tenants[0])).status_code == 202


async def test_destroying_takes_somebody_else(house: House, tenants: tuple[Client, Client]) -> None:
    holding = tenants[0]
    tenant = ("--tenant", str(holding.tenant_id))
    assert (planned := house.told("destroy", *tenant))["done"] is False
    assert (planned["delayDays"], planned["fields"]["financial_instruments"]) == (7, 1)
    asked = house.told("destroy", *tenant, "--yes")
    assert (asked["destroyAskedBy"], asked["destroyAfter"]) == (USER, None)
    itself = house.keys("destroy", *tenant, "--approve", "--yes")
    assert (itself.returncode, "KEY_DESTROY_NEEDS_ANOTHER: " in itself.stderr) == (1, True)
    approved = await holding.post(f"{KEYS}/customer/destroy/approve", {"version": 1})
    assert approved.json()["destruction"]["approvedBy"] == holding.public_key
    assert house.told("cancel", *tenant)["destroyAskedBy"] is None
    again = house.keys("cancel", *tenant)
    assert (again.returncode, "KEY_DESTROY_NOT_ASKED: " in again.stderr) == (1, True)


async def test_verifying_names_what_does_not_open(house: House, tenants: tuple[Client, Client]) -> None:
    damaged, whole = tenants
    tenant = ("--tenant", str(damaged.tenant_id))
    [verified] = house.told("verify", *tenant)
    assert (verified["opened"] >= 6, verified["away"], verified["broken"]) == (True, 0, [])
    installation = Installation(Config(data_dir=house.server.data_dir))
    url = url_of(installation.admin_url, "eu").reveal()
    with psycopg.connect(url, autocommit=True) as admin:
        order = "update orders set sealed = set_byte(sealed, 40, 255 - get_byte(sealed, 40)) where tenant_id = %s"
        instrument = "update financial_instruments set sensitive = sealed where tenant_id = %s"
        for statement in (order, instrument):
            admin.execute(statement, (damaged.tenant_id,))
        row = admin.execute("select order_id from orders where tenant_id = %s", (damaged.tenant_id,)).fetchone()
        try:
            done = house.keys("verify", "--json")
            found = {each["tenantId"]: each for each in json.loads(done.stdout)}
            said = house.keys("verify", *tenant)
        finally:
            admin.execute(order, (damaged.tenant_id,))
            admin.execute("delete from financial_instruments where tenant_id = %s", (damaged.tenant_id,))
    assert (done.returncode, said.returncode) == (1, 1)
    assert [(each["table"], each["column"], each["code"]) for each in found[str(damaged.tenant_id)]["broken"]] == [
        ("financial_instruments", "sensitive", "ENVELOPE_BROKEN"), ("orders", "sealed", "ENVELOPE_BROKEN"),
    ]  # fmt: skip
    assert row is not None
    assert found[str(damaged.tenant_id)]["broken"][1]["row"] == str(row[0])
    assert found[str(whole.tenant_id)]["broken"] == []
    assert f"ENVELOPE_BROKEN: tenant {damaged.tenant_id}, orders.sealed {row[0]}" in said.stdout
    # It was looked at, and that is on record.
    [verified] = house.told("verify", *tenant)
    assert verified["broken"] == []


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("show",), "SCOPE_NOT_NAMED"),
        (("show", "--tenant", str(UUID(int=7))), "TENANT_NOT_FOUND"),
        (("show", "--account", str(UUID(int=7))), "ACCOUNT_NOT_FOUND"),
        (("import", "--tenant", str(UUID(int=7)), "--token", "x"), "IMPORT_STEP_NOT_NAMED"),
        (("import", "--tenant", str(UUID(int=7)), "--token", "x", "--wrapped", "/none"), "FILE_NOT_FOUND"),
        (("root", "end", "1", "--yes"), "ROOT_VERSION_IN_USE"),
        (("root", "passphrase", "--remove", "--file", "x"), "PASSPHRASE_NOT_CLEAR"),
    ],
)
def test_what_is_wrong_is_one_line(house: House, arguments: tuple[str, ...], code: str) -> None:
    done = house.keys(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"{code}: ")


def test_no_installation_is_made_by_looking_for_its_keys(tmp_path: Path) -> None:
    done = run_command("keys", "list", "--data-dir", str(tmp_path / "none"))
    assert (done.returncode, done.stderr.split(":")[0]) == (1, "INSTALLATION_NOT_FOUND")
    assert not (tmp_path / "none").exists()


@pytest.fixture(scope="module")
def filled() -> Iterator[Path]:
    """An installation with an account and a tenant, not served."""

    async def fill(installation: Installation) -> None:
        async with opened(installation) as platform:
            tenant = await platform.new_tenant()
            await make_account(tenant)
            await make_order(tenant)

    with public_folder() as folder:
        with started(folder) as installation:
            asyncio.run(fill(installation))
        yield installation.config.data_dir


@pytest.fixture
def data_dir(filled: Path) -> Iterator[Path]:
    """A copy of it, to change its root key."""
    with public_folder() as folder:
        subprocess.run(["cp", "--archive", filled, folder], check=True)
        yield folder / filled.name


def test_the_root_key_is_rotated_and_its_old_version_ended(data_dir: Path) -> None:
    def root(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("keys", "root", *arguments, "--data-dir", str(data_dir))

    back_up = re.compile(r"Copy \S+/keys to a safe place")
    first = (data_dir / "keys" / "master.key").read_bytes()
    for planned in (root("rotate"), root("end", "1"), root("passphrase")):
        assert planned.returncode == 0
        assert back_up.search(planned.stdout)
        assert planned.stdout.endswith("Nothing was done. Give --yes to do it.\n")
    assert (data_dir / "keys" / "master.key").read_bytes() == first
    # The customer's key, and the one that persons' secrets are under.
    rotated = root("rotate", "--yes", "--json")
    assert json.loads(rotated.stdout) | {"folder": ""} == {"newest": 2, "kept": 2, "inDatabase": 2, "folder": ""}
    shown = json.loads(root("show", "--json").stdout)
    assert (shown["newest"], shown["inDatabase"], shown["protected"]) == (2, {"1": 0, "2": 2}, False)
    ended = root("end", "1", "--yes")
    assert (ended.returncode, bool(back_up.search(ended.stdout))) == (0, True)
    assert json.loads(root("show", "--json").stdout)["inDatabase"] == {"2": 2}
    verified = run_command("keys", "verify", "--data-dir", str(data_dir))
    assert re.fullmatch(r"\d+ fields open, 0 don't, 0 couldn't be looked at: their key is away.\n", verified.stdout)
    assert verified.returncode == 0


def test_everybody_s_scope_keys_are_renewed(data_dir: Path) -> None:
    def renew(*arguments: str) -> subprocess.CompletedProcess[str]:
        return run_command("keys", "renew", *arguments, "--data-dir", str(data_dir))

    planned = json.loads(renew("--layer", "platform", "--json").stdout)
    assert (planned["done"], planned["scopes"]) == (False, 2)
    for layer, scope_keys, data_keys in (("platform", 2, 5), ("customer", 1, 1)):
        before = ("--layer", layer, "--before", planned["before"], "--yes", "--json")
        done = renew(*before)
        assert (done.returncode, json.loads(done.stdout)) == (
            0, {"before": planned["before"], "scopeKeys": scope_keys, "dataKeys": data_keys, "left": 0}
        )  # fmt: skip
        assert json.loads(renew(*before).stdout)["scopeKeys"] == 0, "they are from after that moment now"
    refused = renew("--layer", "platform", "--before", "yesterday", "--yes")
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "MOMENT_IS_INVALID")
    assert run_command("keys", "verify", "--data-dir", str(data_dir)).returncode == 0


async def test_a_rotation_of_the_root_key_that_broke_off_is_finished(data_dir: Path) -> None:
    """A version was made and nothing wrapped by it yet: that one is taken, and no other made."""
    installation = Installation(Config(data_dir=data_dir))
    await installation.holder.rotate_root()
    in_use = run_command("keys", "root", "end", "1", "--yes", "--data-dir", str(data_dir))
    assert (in_use.returncode, in_use.stderr.split(":")[0]) == (1, "ROOT_VERSION_IN_USE")
    done = run_command("keys", "root", "rotate", "--yes", "--json", "--data-dir", str(data_dir))
    assert json.loads(done.stdout) | {"folder": ""} == {"newest": 2, "kept": 2, "inDatabase": 2, "folder": ""}


def test_the_passphrase_of_the_root_key_is_changed_and_taken_away(data_dir: Path, tmp_path: Path) -> None:
    new = tmp_path / "passphrase"
    write(new, "correct horse battery staple\n")

    def keys(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run_command("keys", *arguments, "--data-dir", str(data_dir), **variables)

    assert json.loads(keys("root", "passphrase", "--file", str(new), "--yes", "--json").stdout)["protected"] is True
    for variables, code in (
        ({}, "PASSPHRASE_IS_REQUIRED"),
        ({"STRONGROOM_KEYS_PASSPHRASE": "something else entirely"}, "PASSPHRASE_WRONG"),
    ):
        refused = keys("list", **variables)
        assert (refused.returncode, refused.stderr.split(":")[0]) == (1, code)
    given = {"STRONGROOM_KEYS_PASSPHRASE_FILE": str(new)}
    assert json.loads(keys("root", "show", "--json", **given).stdout)["protected"] is True
    assert keys("verify", **given).returncode == 0
    assert keys("root", "passphrase", "--remove", "--yes", **given).returncode == 0
    assert keys("list").returncode == 0


async def test_serving_with_a_passphrase(tmp_path: Path) -> None:
    """Without it `serve` ends with what is missing; with it every part has it."""
    with public_folder() as folder, pytest.MonkeyPatch.context() as patch:
        server = Server(folder)
        patch.setenv("STRONGROOM_KEYS_PASSPHRASE", "correct horse battery staple")
        told = json.loads(server.run("accounts", "create", "--name", "Alpine Mutual", "--json").stdout)
        patch.delenv("STRONGROOM_KEYS_PASSPHRASE")
        refused = run_command("serve", "--data-dir", str(server.data_dir), "--port", "0", "--simulator-port", "0")
        assert (refused.returncode, "PASSPHRASE_IS_REQUIRED: " in refused.stderr) == (1, True)
        patch.setenv("STRONGROOM_KEYS_PASSPHRASE", "correct horse battery staple")
        try:
            server.start()
            context = ssl.create_default_context(cafile=server.ca_file)
            async with httpx.AsyncClient(base_url=server.url, verify=context, timeout=30) as http:
                account = Client(
                    http=http,
                    account_id=told["accountId"],
                    public_key=told["publicKey"],
                    private_key=told["privateKey"],
                )
                assert (await account.get("/v1/account")).status_code == 200
        finally:
            server.stop()

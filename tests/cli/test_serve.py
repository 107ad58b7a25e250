"""`strongroom serve`: TLS only, kept up whatever dies, gone without a trace when told to stop."""

from __future__ import annotations

import json
import signal
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from strongroom.identity import LocalAuthority
from strongroom.kernel.clock import ManualClock
from tests.fixtures.commands import run_command
from tests.fixtures.platform import Server, public_folder
from tests.fixtures.signing import authorization

PATIENCE_S = 30


def eventually(what: Callable[[], bool]) -> bool:
    """Whether it becomes true in good time."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if what():
            return True
        time.sleep(0.1)
    return False


def is_ready(server: Server) -> bool:
    try:
        with server.http() as http:
            return http.get("/ready").status_code == 200
    except httpx.TransportError:
        return False


def open_account(server: Server, name: str = "Alpine Mutual") -> dict[str, Any]:
    done = server.run("accounts", "create", "--name", name, "--json")
    assert done.returncode == 0, done.stderr
    opened: dict[str, Any] = json.loads(done.stdout)
    return opened


def database_of(server: Server) -> psutil.Process:
    return psutil.Process(int((server.data_dir / "database/data/postmaster.pid").read_text().split()[0]))


def runs(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and waits for its parent's notice doesn't."""
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def hurt_server() -> Iterator[Server]:
    with public_folder() as folder:
        server = Server(folder)
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def own_server(hurt_server: Server) -> Server:
    """A running server that a test may hurt or stop."""
    hurt_server.options = ()
    if not hurt_server.running:
        hurt_server.start()
    return hurt_server


def test_it_says_where_it_is_and_serves_over_tls(server: Server) -> None:
    assert f"CA file      {server.ca_file}" in server.log
    with server.http() as http:
        answer = http.get("/health")
        assert answer.json() == {"status": "ok", "environment": "sandbox"}
        assert "max-age=" in answer.headers["strict-transport-security"]


def test_a_client_that_does_not_trust_the_authority_gets_nothing(server: Server) -> None:
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{server.url}/health")


def test_plain_http_on_the_port_gets_nothing(server: Server) -> None:
    address = urlsplit(server.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        try:
            while part := plain.recv(4096):
                answer += part
        except ConnectionResetError:
            pass
    assert b"HTTP" not in answer
    assert b"ok" not in answer


@pytest.mark.parametrize(
    ("version", "agreed"),
    [(ssl.TLSVersion.TLSv1_1, None), (ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")],
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_tls_versions(server: Server, version: ssl.TLSVersion, agreed: str | None) -> None:
    address = urlsplit(server.url)
    context = ssl.create_default_context(cafile=server.ca_file)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = version
    with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as plain:
        if agreed is None:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="127.0.0.1")
        else:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secure:
                assert secure.version() == agreed


def test_one_version_of_http_is_spoken(server: Server) -> None:
    """With two the web server waits without a limit for what tells them apart (`strongroom.cli.web_server`)."""
    address = urlsplit(server.url)
    context = ssl.create_default_context(cafile=server.ca_file)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as secure,
    ):
        assert secure.selected_alpn_protocol() == "http/1.1"


def test_an_account_opened_while_it_serves_signs_in_at_once(server: Server) -> None:
    opened = open_account(server)
    with server.http() as http:
        header = authorization(opened["publicKey"], opened["privateKey"])
        answer = http.post("/v1/identity/hmac", headers={"Authorization": header})
        assert answer.status_code == 201
        account = http.get(
            "/v1/account",
            headers={
                "Authorization": f"Bearer {answer.json()['accessToken']}",
                "x-account-id": opened["accountId"],
            },
        )
        assert account.json()["companyName"] == "Alpine Mutual"


def test_files_that_hold_secrets_are_for_their_owner_alone(server: Server) -> None:
    keys = server.data_dir / "keys"
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {file.name: file.stat().st_mode & 0o777 for file in keys.iterdir() if file.stat().st_mode & 0o077} == {}
    assert server.ca_file.stat().st_mode & 0o777 == 0o644


def test_another_server_on_the_port_is_refused(server: Server) -> None:
    with public_folder() as folder:
        port = str(urlsplit(server.url).port)
        done = run_command("serve", "--data-dir", str(folder / "other"), "--port", port)
    assert done.returncode == 1
    assert done.stderr.startswith("PORT_IN_USE")
    assert "Traceback" not in done.stderr


def test_the_other_environment_is_refused(server: Server) -> None:
    done = server.run("accounts", "create", "--name", "A", "--environment", "production")
    assert done.returncode == 1
    assert done.stderr.startswith("OTHER_ENVIRONMENT")


def test_a_restart_keeps_keys_data_and_nonces(own_server: Server) -> None:
    opened = open_account(own_server)
    header = {"Authorization": authorization(opened["publicKey"], opened["privateKey"])}
    with own_server.http() as http:
        token = http.post("/v1/identity/hmac", headers=header).json()["accessToken"]
    ca = own_server.ca_file.read_bytes()
    assert own_server.stop() == 0
    own_server.start()
    assert own_server.ca_file.read_bytes() == ca
    with own_server.http() as http:
        replayed = http.post("/v1/identity/hmac", headers=header)
        assert replayed.status_code == 401
        assert replayed.json()["errors"][0]["errorCode"] == "NONCE_REPLAYED"
        headers = {"Authorization": f"Bearer {token}", "x-account-id": opened["accountId"]}
        assert http.get("/v1/account", headers=headers).status_code == 200


def test_parts_that_are_killed_come_back(own_server: Server) -> None:
    def part(word: str) -> psutil.Process:
        return next(process for process in psutil.Process(own_server.pid).children() if word in process.cmdline())

    api = part("serve-api")
    worker = api.children()[0]
    database = database_of(own_server)
    simulator = part("strongroom.rails.simulator")
    for victim in (worker, database, simulator, api):
        victim.kill()
        psutil.wait_procs([victim], timeout=PATIENCE_S)
        assert eventually(lambda: is_ready(own_server)), own_server.log
    assert eventually(lambda: part("strongroom.rails.simulator").pid != simulator.pid)
    assert not any(process.pid == worker.pid for process in own_server.family())


def test_a_certificate_that_is_about_to_end_is_renewed_while_it_serves(own_server: Server) -> None:
    def served() -> x509.Certificate:
        address = urlsplit(own_server.url)
        where = (str(address.hostname), int(address.port or 0))
        return x509.load_pem_x509_certificate(ssl.get_server_certificate(where).encode())

    keys, first = own_server.data_dir / "keys", served()
    a_year_ago = ManualClock(datetime.now(UTC) - timedelta(days=380))
    old = LocalAuthority(keys, ("localhost", "127.0.0.1", "::1"), a_year_ago).issue("old")
    old.key.replace(keys / "server.key")
    old.chain.replace(keys / "server.pem")
    assert eventually(lambda: served() != first)
    assert served().not_valid_after_utc - datetime.now(UTC) > timedelta(days=390)
    assert is_ready(own_server)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_leaves_nobody(own_server: Server, how: signal.Signals) -> None:
    family = own_server.family()
    assert len(family) >= 4
    family.append(database_of(own_server))
    assert own_server.stop(how) == 0
    assert [process for process in family if runs(process)] == []
    assert "Traceback" not in own_server.log


def test_killed_outright_it_leaves_nobody_at_the_door(own_server: Server) -> None:
    children = own_server.family()[1:]
    own_server.kill()
    _, alive = psutil.wait_procs(children, timeout=PATIENCE_S)
    assert [process for process in alive if runs(process)] == []
    # What the killed supervisor couldn't stop is the database; the next command finds it and leaves it stopped.
    open_account(own_server)
    assert not (own_server.data_dir / "database/data/postmaster.pid").exists()


def test_ones_own_certificate(own_server: Server) -> None:
    keys = own_server.data_dir / "keys"
    own_server.stop()
    chain, key = (Path(own_server.data_dir, f"own.{suffix}") for suffix in ("pem", "key"))
    (keys / "simulator.pem").rename(chain)
    (keys / "simulator.key").rename(key)
    authority = (keys / "ca.pem").read_bytes()
    own_server.options = ("--certificate", str(chain), "--certificate-key", str(key))
    own_server.start()
    (own_server.data_dir / "trusted.pem").write_bytes(authority)
    trusting = ssl.create_default_context(cafile=own_server.data_dir / "trusted.pem")
    with httpx.Client(verify=trusting) as http:
        assert http.get(f"{own_server.url}/health").status_code == 200
    address = urlsplit(own_server.url)
    served = ssl.PEM_cert_to_DER_cert(ssl.get_server_certificate((str(address.hostname), int(address.port or 0))))
    assert served == x509.load_pem_x509_certificate(chain.read_bytes()).public_bytes(Encoding.DER)
    assert "CA file" not in own_server.log


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (("--certificate", "/nowhere.pem", "--certificate-key", "/nowhere.key"), "FILE_NOT_FOUND"),
        (("--certificate", __file__), "CERTIFICATE_KEY_IS_REQUIRED"),
        (("--certificate", __file__, "--certificate-key", __file__), "CERTIFICATE_UNUSABLE"),
    ],
)
def test_certificates_that_can_not_be_used(options: tuple[str, ...], code: str) -> None:
    with public_folder() as folder:
        done = run_command("serve", "--data-dir", str(folder / "x"), "--port", "0", "--simulator-port", "0", *options)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(code)
    assert "Traceback" not in done.stderr

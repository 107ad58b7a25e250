"""What is measured: a running server that takes orders, who may call it, and the processes it is made of."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.client
import json
import os
import secrets
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from joserfc import jwt
from joserfc.jwk import OctKey

from bench.failure import BenchError
from bench.processes import family_of, free_port, serving
from strongroom.database import EmbeddedServer
from strongroom.identity import LocalAuthority
from strongroom.kernel.clock import SystemClock

API_PROCESSES = 2

_STRONGROOM = (sys.executable, "-m", "strongroom.cli")
_HOST = "127.0.0.1"
_REPOSITORY = Path(__file__).resolve().parent.parent
_TIMEOUT_S = 120
_TOKEN_LIFETIME_S = 900


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server at `base_url`, whose certificate `ca_file` vouches for.

    `authorise` signs in and returns the headers that every request needs, good for some minutes; `parts` finds the
    server's processes by role, of which `api` and `database` are always there.
    """

    base_url: str
    ca_file: Path
    authorise: Callable[[], Mapping[str, str]]
    parts: Callable[[], Mapping[str, Sequence[psutil.Process]]]

    def connection(self) -> closing[http.client.HTTPSConnection]:
        """A TLS connection to the server, its certificate verified; for use as a context."""
        return _connection(self.base_url, self.ca_file)


@contextmanager
def start_strongroom(data: Path) -> Iterator[Target]:
    """Serve a new installation in `data` with two API processes, with an account and a tenant that may pay.

    Raises:
        BenchError: it doesn't start, or refuses to be set up.
    """
    installation = ("--data-dir", str(data))
    account = _open_account(installation)
    port = free_port()
    ports = ("--port", str(port), "--simulator-port", str(free_port()), "--processes", str(API_PROCESSES))
    cards = ("--cards-port", str(free_port()), "--cards-inner-port", str(free_port()))
    command = [*_STRONGROOM, "serve", *installation, *ports, *cards]
    with serving(command, port=port, log=data.with_suffix(".log"), environment=os.environ) as process:
        api = _Api(f"https://{_HOST}:{port}", data / "ca.pem")
        tenant = _open_tenant(api, account)

        def parts() -> Mapping[str, Sequence[psutil.Process]]:
            family = family_of(process)
            # The workers are forks of the process that was started as `serve-api`, and look like it.
            apis = [member for member in family if "serve-api" in member.cmdline()]
            others = [member for member in family if member not in apis]
            return {"api": apis, "database": database_processes(data / "database" / "data"), "others": others}

        yield Target(base_url=api.base_url, ca_file=api.ca_file, authorise=lambda: api.sign_in(tenant), parts=parts)


@contextmanager
def start_ordinary(database: EmbeddedServer, folder: Path) -> Iterator[Target]:
    """Serve order creation written the ordinary way (`bench/ordinary.py`) on this database server.

    Raises:
        BenchError: it doesn't start.
    """
    authority = LocalAuthority(folder, [_HOST], SystemClock())
    certificate = authority.issue("ordinary")
    port, key, tenant = free_port(), secrets.token_hex(32), str(uuid.uuid4())
    environment = {
        **os.environ,
        "PYTHONPATH": str(_REPOSITORY),
        "ORDINARY_DATABASE": database.url.reveal().replace("postgresql://", "postgresql+psycopg://"),
        "ORDINARY_KEY": key,
    }
    command = [sys.executable, "-m", "bench.ordinary", str(port), str(certificate.chain), str(certificate.key)]

    def authorise() -> Mapping[str, str]:
        claims = {"sub": "bench", "tenant": tenant, "exp": int(time.time()) + _TOKEN_LIFETIME_S}
        token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))
        return {"Authorization": f"Bearer {token}", "x-tenant-id": tenant}

    with serving(command, port=port, log=folder / "ordinary.log", environment=environment) as process:
        yield Target(
            base_url=f"https://{_HOST}:{port}",
            ca_file=authority.certificate,
            authorise=authorise,
            parts=lambda: {"api": family_of(process), "database": database_processes(database.data)},
        )


def database_processes(data: Path) -> list[psutil.Process]:
    """The server that keeps its files in `data`, with its backends."""
    pid = (data / "postmaster.pid").read_text().splitlines()[0]
    return family_of(psutil.Process(int(pid)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Key:
    """An API key, and the headers that name whose it is."""

    public: str
    private: str
    owner: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Api:
    """The public API, as any client sees it."""

    base_url: str
    ca_file: Path

    def sign_in(self, key: _Key) -> Mapping[str, str]:
        """The headers of a request in the key's name, with a fresh token."""
        nonce = secrets.token_urlsafe(16)
        text = f"{key.public}:{nonce}:{time.time():.3f}:"
        digest = hmac.digest(base64.b64decode(key.private), text.encode(), hashlib.sha256)
        signed = {"Authorization": f"Hmac {text}{base64.b64encode(digest).decode()}"}
        token = self.post("/v1/identity/hmac", None, signed)["accessToken"]
        return {"Authorization": f"Bearer {token}", **key.owner}

    def post(self, path: str, body: Mapping[str, Any] | None, headers: Mapping[str, str]) -> dict[str, Any]:
        """The answer's body.

        Raises:
            BenchError: anything but 201.
        """
        with _connection(self.base_url, self.ca_file) as connection:
            content = None if body is None else json.dumps(body)
            connection.request("POST", path, content, {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            said = answer.read()
        if answer.status != http.HTTPStatus.CREATED:
            raise BenchError(f"POST {path} answered {answer.status}: {said[:500].decode(errors='replace')}")
        made: dict[str, Any] = json.loads(said)
        return made


def _open_account(installation: Sequence[str]) -> _Key:
    command = [*_STRONGROOM, "accounts", "create", "--name", "Bench", "--json", *installation]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise BenchError(f"no account could be opened: {done.stderr}")
    opened = json.loads(done.stdout)
    return _Key(public=opened["publicKey"], private=opened["privateKey"], owner={"x-account-id": opened["accountId"]})


def _open_tenant(api: _Api, account: _Key) -> _Key:
    headers = api.sign_in(account)
    tenant = api.post("/v1/account/tenants", {"name": "Bench"}, headers)["tenantId"]
    wanted = {"name": "Bench", "roles": ["tenant-transaction-write"]}
    key = api.post(f"/v1/tenant/{tenant}/keys", wanted, headers)
    return _Key(public=key["publicKey"], private=key["privateKey"], owner={**account.owner, "x-tenant-id": tenant})


def _connection(base_url: str, ca_file: Path) -> closing[http.client.HTTPSConnection]:
    address = urlsplit(base_url)
    trusting = ssl.create_default_context(cafile=ca_file)
    return closing(
        http.client.HTTPSConnection(address.hostname or "", address.port, context=trusting, timeout=_TIMEOUT_S)
    )

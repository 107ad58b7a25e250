"""What is measured: a running server that takes orders, who may call it, and the processes it is made of."""

from __future__ import annotations

import http.client
import os
import secrets
import ssl
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psutil
from joserfc import jwt
from joserfc.jwk import OctKey

from bench.certificate import write_certificate
from bench.processes import family_of, free_port, serving
from strongroom.database.embedded import EmbeddedServer

API_PROCESSES = 2

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

    @contextmanager
    def connection(self) -> Iterator[http.client.HTTPSConnection]:
        """A TLS connection to the server, its certificate verified."""
        address = urlsplit(self.base_url)
        trusting = ssl.create_default_context(cafile=self.ca_file)
        connection = http.client.HTTPSConnection(
            address.hostname or "", address.port, context=trusting, timeout=_TIMEOUT_S
        )
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def start_ordinary(database: EmbeddedServer, folder: Path) -> Iterator[Target]:
    """Serve order creation written the ordinary way (`bench/ordinary.py`) on this database server.

    Raises:
        BenchError: it doesn't start.
    """
    certificate, certificate_key = write_certificate(folder)
    port, key, tenant = free_port(), secrets.token_hex(32), str(uuid.uuid4())
    environment = {
        **os.environ,
        "PYTHONPATH": str(_REPOSITORY),
        "ORDINARY_DATABASE": database.url.reveal().replace("postgresql://", "postgresql+psycopg://"),
        "ORDINARY_KEY": key,
    }
    command = [sys.executable, "-m", "bench.ordinary", str(port), str(certificate), str(certificate_key)]

    def authorise() -> Mapping[str, str]:
        claims = {"sub": "bench", "tenant": tenant, "exp": int(time.time()) + _TOKEN_LIFETIME_S}
        token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(key))
        return {"Authorization": f"Bearer {token}", "x-tenant-id": tenant}

    with serving(command, port=port, log=folder / "ordinary.log", environment=environment) as process:
        yield Target(
            base_url=f"https://127.0.0.1:{port}",
            ca_file=certificate,
            authorise=authorise,
            parts=lambda: {"api": family_of(process)[1:], "database": database_processes(database.data)},
        )


def database_processes(data: Path) -> list[psutil.Process]:
    """The server that keeps its files in `data`, with its backends."""
    pid = (data / "postmaster.pid").read_text().splitlines()[0]
    return family_of(psutil.Process(int(pid)))

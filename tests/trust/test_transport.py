"""ENC-1 turns red for every way in which a listener or the database could speak in clear, or too weakly."""

from __future__ import annotations

import dataclasses
import os
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from strongroom.assembly import Installation
from strongroom.cli.supervisor import choose_port
from strongroom.cli.workbenches import listening
from strongroom.database import EmbeddedServer
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Outbound
from strongroom.trust import Listener, Workbench
from strongroom.trust.checks.transport import check_transport
from strongroom.trust.probes import OLD, TLS_1_0, accepts
from tests.certificates import Authority
from tests.trust.breaking import plain_server, tls_server

Send = Callable[[dict[str, Any]], Awaitable[None]]
HSTS = b"strict-transport-security"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_transport(bench)
    assert figure.breaches == ()
    assert figure.text.startswith("API and simulator: TLS 1.2 and 1.3 only")


async def test_a_plain_listener_is_red(bench: Workbench) -> None:
    async with plain_server() as port:
        breaches = await breaches_of(bench, port, bench.api.trust)
    assert "simulator: plain HTTP is answered" in breaches
    assert any(breach.startswith("simulator: no verified TLS 1.3") for breach in breaches)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
async def test_an_old_version_and_weak_suites_are_red(bench: Workbench, authority: Authority) -> None:
    certificate = authority.issue("127.0.0.1")
    async with tls_server(certificate, ssl.TLSVersion.TLSv1, ciphers="ALL:@SECLEVEL=0") as port:
        assert await accepts("127.0.0.1", port, TLS_1_0, OLD)
        breaches = await breaches_of(bench, port, authority.ca)
    assert "simulator: TLS 1.0 is accepted" in breaches
    assert "simulator: TLS 1.1 is accepted" in breaches
    assert "simulator: a suite with CBC is accepted" in breaches


async def test_a_server_without_encryption_is_red(bench: Workbench, authority: Authority) -> None:
    certificate = authority.issue("127.0.0.1")
    suites = "eNULL:ECDHE+AESGCM:@SECLEVEL=0"
    async with tls_server(certificate, ssl.TLSVersion.TLSv1_2, ciphers=suites) as port:
        breaches = await breaches_of(bench, port, authority.ca)
    assert breaches == ("simulator: a suite with no encryption is accepted",)


async def test_a_certificate_of_somebody_else_is_red(bench: Workbench, authority: Authority) -> None:
    certificate = authority.issue("127.0.0.1")
    async with tls_server(certificate, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE+AESGCM") as port:
        breaches = await breaches_of(bench, port, bench.api.trust)
        assert await breaches_of(bench, port, authority.ca) == ()
    assert [breach.partition(" (")[0] for breach in breaches] == [
        "simulator: no verified TLS 1.2",
        "simulator: no verified TLS 1.3",
    ]


async def test_a_certificate_for_another_name_is_red(bench: Workbench, authority: Authority) -> None:
    certificate = authority.issue("elsewhere.test")
    async with tls_server(certificate, ssl.TLSVersion.TLSv1_2, ciphers="ECDHE+AESGCM") as port:
        breaches = await breaches_of(bench, port, authority.ca)
    assert len(breaches) == 2


@pytest.mark.parametrize("policy", [b"", b"max-age=300", b"includeSubDomains"])
async def test_an_api_without_strict_transport_security_is_red(bench: Workbench, policy: bytes) -> None:
    async def application(scope: object, receive: object, send: Send) -> None:
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(HSTS, policy), (b"content-length", b"0")]}
        )
        await send({"type": "http.response.body", "body": b""})

    port = choose_port("127.0.0.1", 0)
    allowed = [Destination(host="127.0.0.1", port=port, loopback_ok=True)]
    async with (
        listening(application, port, Installation(bench.config).certificate()),
        Outbound(allowed=allowed, trust=bench.api.trust) as outbound,
    ):
        lax = dataclasses.replace(bench, api=dataclasses.replace(bench.api, port=port), outbound=outbound)
        figure = await check_transport(lax)
    assert figure.breaches == (f"API: no strict transport security for a year ({policy.decode()})",)


async def test_a_database_on_the_network_is_red(bench: Workbench, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    # This process listens, as the API; were it the database, that would be wrong.
    (tmp_path / "data" / "postmaster.pid").write_text(f"{os.getpid()}\n")
    exposed = dataclasses.replace(bench, server=EmbeddedServer(tmp_path, Secret("x")))
    figure = await check_transport(exposed)
    assert [breach for breach in figure.breaches if breach.startswith("the database listens on 127.0.0.1:")]


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca"])
async def test_a_remote_database_without_full_verification_is_red(bench: Workbench, mode: str) -> None:
    url = Secret(f"postgresql://postgres@db.example.test/postgres?sslmode={mode}")
    figure = await check_transport(dataclasses.replace(bench, server=None, admin_url=url))
    assert figure.breaches == (f"the database is reached with sslmode {mode}",)


async def breaches_of(bench: Workbench, port: int, trust: Path | None) -> Sequence[str]:
    """What the check finds with this listener in place of the simulator's."""
    listener = Listener(name="simulator", host="127.0.0.1", port=port, trust=trust)
    return (await check_transport(dataclasses.replace(bench, simulator=listener))).breaches

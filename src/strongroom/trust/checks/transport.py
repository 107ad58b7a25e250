"""ENC-1: every interface speaks TLS and nothing else.

Asks every listener for each version and for weak suites, by greetings of our own making, so that the answer doesn't
depend on what this machine's own TLS library would dare to offer. Mutual TLS between our processes and the card vault
belongs to ENC-4; TLS to providers other than the simulator is not part of it yet.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

import psutil
from psycopg.conninfo import conninfo_to_dict

from strongroom.database.databases import url_of
from strongroom.outbound import NoAnswer, NotSent
from strongroom.trust.probes import (
    MODERN,
    OLD,
    TIMEOUT_S,
    TLS_1_0,
    TLS_1_1,
    TLS_1_2,
    WEAK,
    accepts,
    says_to_plain_http,
)
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Listener, Workbench

MIN_HSTS_S: Final = 31_536_000
"""A year."""
_SPOKEN: Final = frozenset({"TLSv1.2", "TLSv1.3"})
_OLD_VERSIONS: Final = {"TLS 1.0": TLS_1_0, "TLS 1.1": TLS_1_1}
_VERSIONS: Final = {"TLS 1.2": ssl.TLSVersion.TLSv1_2, "TLS 1.3": ssl.TLSVersion.TLSv1_3}


async def check_transport(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    listeners = [listener for listener in (bench.api, bench.simulator, bench.cards) if listener is not None]
    for listener in listeners:
        await _check_listener(findings, listener)
    await _check_hsts(findings, bench)
    database = await _check_database(findings, bench)
    *first, last = (listener.name for listener in listeners)
    names = f"{', '.join(first)} and {last}" if first else last
    return findings.figure(f"{names}: TLS 1.2 and 1.3 only, {len(WEAK)} families of weak suites refused, {database}")


async def _check_listener(findings: Findings, listener: Listener) -> None:
    name, host, port = listener.name, listener.host, listener.port
    spoken = await asyncio.gather(*(_handshake(listener, version) for version in _VERSIONS.values()))
    for label, answer in zip(_VERSIONS, spoken, strict=True):
        findings.expect(answer == label.replace(" ", "v"), f"{name}: no verified {label} ({answer})")
    modern, *old = await asyncio.gather(
        accepts(host, port, TLS_1_2, MODERN),
        *(accepts(host, port, version, OLD) for version in _OLD_VERSIONS.values()),
        *(accepts(host, port, TLS_1_2, suites) for suites in WEAK.values()),
    )
    # Were the probe itself broken, everything would look refused; so it is shown something that isn't.
    findings.expect(modern, f"{name}: TLS 1.2 with a modern suite is refused")
    labels = (*_OLD_VERSIONS, *(f"a suite with {label}" for label in WEAK))
    for label, accepted in zip(labels, old, strict=True):
        findings.expect(not accepted, f"{name}: {label} is accepted")
    plain = await says_to_plain_http(host, port)
    findings.expect(not plain.startswith(b"HTTP/"), f"{name}: plain HTTP is answered")


async def _handshake(listener: Listener, version: ssl.TLSVersion) -> str:
    """The version spoken with a verified certificate, or why there was none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = version
    if listener.trust is None:
        context.load_default_certs()
    else:
        context.load_verify_locations(cafile=listener.trust)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, writer = await asyncio.open_connection(
                listener.host,
                listener.port,
                ssl=context,
                server_hostname=listener.host,
                ssl_handshake_timeout=TIMEOUT_S,
            )
    except (OSError, TimeoutError) as error:  # ssl.SSLError is an OSError
        return str(error) or type(error).__name__
    spoken = writer.get_extra_info("ssl_object").version()
    writer.transport.abort()
    return str(spoken)


async def _check_hsts(findings: Findings, bench: Workbench) -> None:
    try:
        answer = await bench.outbound.request("GET", f"{bench.api.url}/health")
    except (NotSent, NoAnswer) as failure:
        findings.breach(f"API: no answer over verified TLS ({failure})")
        return
    policy = answer.headers.get("strict-transport-security", "")
    seconds = policy.partition("max-age=")[2].partition(";")[0].strip()
    findings.expect(
        seconds.isdecimal() and int(seconds) >= MIN_HSTS_S, f"API: no strict transport security for a year ({policy})"
    )


async def _check_database(findings: Findings, bench: Workbench) -> str:
    if bench.server is not None:
        process = int((bench.server.data / "postmaster.pid").read_text().splitlines()[0])
        sockets = [
            f"{sock.laddr.ip}:{sock.laddr.port}"
            for sock in psutil.Process(process).net_connections(kind="tcp")
            if sock.status == psutil.CONN_LISTEN
        ]
        findings.expect(not sockets, f"the database listens on {', '.join(sockets)}")
        return "database on no network address"
    for name in bench.database_names:
        parts = conninfo_to_dict(url_of(bench.admin_url, name).reveal())
        if all(host.startswith("/") for host in str(parts.get("host", "")).split(",")):
            return "database by a local socket"
        mode = parts.get("sslmode")
        if not findings.expect(mode == "verify-full", f"the database is reached with sslmode {mode}"):
            break
        async with bench.admin(name) as connection:
            cursor = await connection.execute("select ssl, version from pg_stat_ssl where pid = pg_backend_pid()")
            row = await cursor.fetchone()
        findings.expect(row is not None and row[0] and row[1] in _SPOKEN, "the database connection is not encrypted")
    return "database over verified TLS"

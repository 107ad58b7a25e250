"""Connections to the real server, over TLS, that are lost before the request is complete: nothing half is done."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import ssl
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from strongroom.api.bulk import CHUNK_LINES
from strongroom.cli.web_server import HEAD_WITHIN_S
from tests.api.paying import ORDERS, instruction, order
from tests.fixtures.platform import Client, Server

BULK = f"{ORDERS}/bulk"


@pytest.fixture(scope="module")
def headers(server: Server) -> dict[str, str]:
    """What requests of a tenant need."""
    opened = json.loads(server.run("accounts", "create", "--name", "Alpine Mutual", "--json").stdout)

    async def sign_in() -> dict[str, str]:
        context = ssl.create_default_context(cafile=server.ca_file)
        async with httpx.AsyncClient(base_url=server.url, verify=context, timeout=30) as http:
            account = Client(
                http=http,
                account_id=opened["accountId"],
                public_key=opened["publicKey"],
                private_key=opened["privateKey"],
            )
            tenant = await account.new_tenant()
            await tenant.sign_in()
            return tenant.headers

    return asyncio.run(sign_in())


@pytest.fixture
def http(server: Server, headers: dict[str, str]) -> Iterator[httpx.Client]:
    with server.http() as client:
        client.headers.update(headers)
        yield client


def send_and_leave(server: Server, path: str, headers: dict[str, str], content: bytes) -> None:
    """POST this much, and close the connection without waiting for anything."""
    place = urlsplit(server.url)
    assert place.hostname is not None
    context = ssl.create_default_context(cafile=server.ca_file)
    head = [f"POST {path} HTTP/1.1", f"host: {place.netloc}", *(f"{name}: {value}" for name, value in headers.items())]
    with (
        socket.create_connection((place.hostname, place.port or 443), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=place.hostname) as connection,
    ):
        connection.sendall("\r\n".join([*head, "", ""]).encode() + content)


async def test_a_thousand_silent_connections_keep_nobody_out(server: Server) -> None:
    """They are closed in time (see below); until then they must not be all that it takes."""
    place = urlsplit(server.url)
    context = ssl.create_default_context(cafile=server.ca_file)
    opened: list[asyncio.StreamWriter] = []
    free = asyncio.Semaphore(50)

    async def say_nothing() -> None:
        async with free, asyncio.timeout(20):
            _, writer = await asyncio.open_connection(place.hostname, place.port, ssl=context)
            opened.append(writer)

    try:
        await asyncio.gather(*(say_nothing() for _ in range(1_000)))
        async with httpx.AsyncClient(base_url=server.url, verify=context, timeout=10) as http:
            assert (await http.get("/ready")).status_code == 200
    finally:
        for writer in opened:
            writer.transport.abort()


def test_connections_that_say_nothing_are_closed(server: Server, headers: dict[str, str]) -> None:
    """At whatever point they fall silent: all at once, so that this takes HEAD_WITHIN_S."""
    place = urlsplit(server.url)
    assert place.hostname is not None
    context = ssl.create_default_context(cafile=server.ca_file)

    def connect(*, secured: bool = True) -> socket.socket:
        raw = socket.create_connection((place.hostname, place.port or 443), timeout=10)
        return context.wrap_socket(raw, server_hostname=place.hostname) if secured else raw

    said = {
        "not even the handshake": (connect(secured=False), b""),
        "half of the handshake": (connect(secured=False), b"\x16\x03\x01\x02\x00\x01"),
        "nothing": (connect(), b""),
        "half a head": (connect(), b"GET /ready HTTP/1.1\r\nhost: x\r\n"),
        "one request": (connect(), b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"),
    }
    began = time.monotonic()
    for connection, words in said.values():
        connection.sendall(words)
    for name, (connection, _) in said.items():
        connection.settimeout(6 * HEAD_WITHIN_S)
        with contextlib.suppress(ConnectionResetError, ssl.SSLEOFError):
            while connection.recv(4096):
                pass
        assert time.monotonic() - began >= HEAD_WITHIN_S / 2, name
        connection.close()


BROKEN_CHUNKS = {
    "no size": b"x\r\n{}\r\n0\r\n\r\n",
    "a negative size": b"-2\r\n{}\r\n0\r\n\r\n",
    "too large a size": b"ffffffffffffffffff\r\n{}\r\n0\r\n\r\n",
    "more than its size": b"1\r\n{}\r\n0\r\n\r\n",
    "a broken one after a good one": b"1\r\n{\r\nzz\r\n}\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("chunks", BROKEN_CHUNKS.values(), ids=BROKEN_CHUNKS.keys())
@pytest.mark.parametrize("path", [ORDERS, BULK, "/v1/reconciliation/reports", "/portal/sign-in"])
def test_broken_chunks_are_the_clients_fault(server: Server, headers: dict[str, str], path: str, chunks: bytes) -> None:
    place = urlsplit(server.url)
    assert place.hostname is not None
    media = {"/v1/reconciliation/reports": "application/xml", "/portal/sign-in": "application/x-www-form-urlencoded"}
    sent = {**headers, "content-type": media.get(path, "application/json"), "transfer-encoding": "chunked"}
    head = [f"POST {path} HTTP/1.1", f"host: {place.netloc}", *(f"{name}: {value}" for name, value in sent.items())]
    context = ssl.create_default_context(cafile=server.ca_file)
    with (
        socket.create_connection((place.hostname, place.port or 443), timeout=20) as raw,
        context.wrap_socket(raw, server_hostname=place.hostname) as connection,
    ):
        connection.sendall("\r\n".join([*head, "", ""]).encode() + chunks)
        answer = connection.recv(4096)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("content", [b"", b" ", b'{"reason": "x"}'], ids=["nothing", "blank", "an object"])
def test_half_a_request_is_no_request(
    server: Server, headers: dict[str, str], http: httpx.Client, framing: str, content: bytes
) -> None:
    """A cancellation needs no body, so one that lost it must not be taken for one without."""
    ref = f"{framing}-{len(content)}"
    assert http.post(ORDERS, json=order(ref, instruction())).status_code == 202
    one = f"{ORDERS}/{ref}/instruction/i-1"
    if framing == "chunked":
        send_and_leave(server, f"{one}/cancel", {**headers, "transfer-encoding": "chunked"}, b"64\r\n" + content)
    else:
        send_and_leave(server, f"{one}/cancel", {**headers, "content-length": "100"}, content)
    time.sleep(0.3)
    assert http.get(one).json()["status"] == "INCOMPLETE"
    assert http.post(f"{one}/cancel", json={}).json()["status"] == "CANCELLED"


def test_an_upload_goes_on_where_it_broke_off(server: Server, headers: dict[str, str], http: httpx.Client) -> None:
    lines = [{"orderRef": f"bulk-{number}", **instruction()} for number in range(CHUNK_LINES + 20)]
    content = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    more = {"content-type": "application/x-ndjson", "idempotency-key": "a-key"}
    head = b"%x\r\n" % len(content)
    send_and_leave(server, BULK, {**headers, **more, "transfer-encoding": "chunked"}, head + content[:-200])
    deadline = time.monotonic() + 20
    while (answer := http.post(BULK, content=content, headers=more)).status_code == 409:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.2)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["accepted"], answer.json()["refused"]) == (len(lines), 0)
    assert http.get(f"{ORDERS}/bulk-{CHUNK_LINES + 19}").status_code == 200

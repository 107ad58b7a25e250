"""What is sent, what is not, and whether the difference is told truly. Real sockets, real TLS, on loopback."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from strongroom.outbound import Answer, Destination, Limits, NoAnswer, NotSent, Outbound
from strongroom.outbound._private import Wire, tls_context
from tests.certificates import Authority
from tests.outbound.scripted import Peer, Script, scripted

PATIENT = Limits(connect_s=20.0, idle_s=20.0, total_s=20.0, answer_bytes=4096, connections=4)
QUICK = Limits(connect_s=0.6, idle_s=0.4, total_s=0.8, answer_bytes=4096, connections=4)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def client(port: int, trust: Path, limits: Limits = PATIENT, host: str = "localhost") -> Outbound:
    return Outbound(allowed=[Destination(host=host, port=port, loopback_ok=True)], trust=trust, limits=limits)


async def post(script: Script, tls: ssl.SSLContext | None, trust: Path, limits: Limits = PATIENT) -> Answer:
    async with scripted(script, tls) as server, client(server.port, trust, limits) as outbound:
        return await outbound.request("POST", f"https://localhost:{server.port}/pay", body=b"money")


async def always_ok(peer: Peer) -> None:
    while await peer.request():
        await peer.say(OK)


# What goes well


async def test_a_request_arrives_as_it_was_written_and_its_answer_comes_back(tls: ssl.SSLContext, trust: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(
            b"HTTP/1.1 201 Created\r\nX-Tag: a\r\nX-Tag: b\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
        )

    async with scripted(script, tls) as server, client(server.port, trust) as outbound:
        url = f"https://localhost:{server.port}/pay?x=1"
        answer = await outbound.request("POST", url, headers={"X-Mine": "yes", "Host": "elsewhere"}, body=b"money")
    assert (answer.status, answer.body, answer.headers["x-tag"]) == (201, b"ok", "a, b")
    (request,) = server.requests
    assert request.startswith(b"POST /pay?x=1 HTTP/1.1\r\n")
    assert request.endswith(b"\r\n\r\nmoney")
    assert f"host: localhost:{server.port}\r\n".encode() in request.lower()
    assert b"elsewhere" not in request
    assert b"x-mine: yes\r\n" in request.lower()


async def test_a_long_answer_comes_back_whole(tls: ssl.SSLContext, trust: Path) -> None:
    content = bytes(range(256)) * 4096

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1048576\r\n\r\n" + content)

    limits = Limits(answer_bytes=1 << 20)
    assert (await post(script, tls, trust, limits)).body == content


async def test_an_answer_that_comes_before_the_request_was_read_is_heard(tls: ssl.SSLContext, trust: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await asyncio.sleep(60)

    async with scripted(script, tls) as server, client(server.port, trust) as outbound:
        answer = await outbound.request("POST", f"https://localhost:{server.port}/", body=bytes(32 << 20))
    assert answer.status == 413


async def test_a_connection_is_kept_for_the_next_request(tls: ssl.SSLContext, trust: Path) -> None:
    async with scripted(always_ok, tls) as server, client(server.port, trust) as outbound:
        for _ in range(3):
            assert (await outbound.request("GET", f"https://localhost:{server.port}/")).body == b"ok"
    assert len(server.requests) == 3
    assert server.connections == 1


@pytest.mark.parametrize("status", [b"302 Found", b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_a_redirect_is_handed_over_and_not_followed(tls: ssl.SSLContext, trust: Path, status: bytes) -> None:
    async with scripted(always_ok, tls) as target:

        async def script(peer: Peer) -> None:
            await peer.request()
            there = f"https://localhost:{target.port}/".encode()
            await peer.say(b"HTTP/1.1 " + status + b"\r\nlocation: " + there + b"\r\ncontent-length: 0\r\n\r\n")

        answer = await post(script, tls, trust)
        assert str(answer.status).encode() == status[:3]
        assert target.requests == []


async def test_a_compressed_answer_is_handed_over_as_it_came(tls: ssl.SSLContext, trust: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\n\x1f\x8b\x00\x00")

    assert (await post(script, tls, trust)).body == b"\x1f\x8b\x00\x00"


async def test_proxies_named_in_the_environment_are_not_used(
    tls: ssl.SSLContext, trust: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scripted(always_ok, None) as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        assert (await post(always_ok, tls, trust)).status == 200
        assert proxy.connections == 0


async def test_session_keys_are_not_written_where_the_environment_says(
    tls: ssl.SSLContext, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert (await post(always_ok, tls, trust)).status == 200
    assert not (tmp_path / "keys").exists()


# It is certain that nothing left


@pytest.mark.parametrize(
    "url",
    [
        "https://elsewhere.example/",
        "https://localhost/",
        "https://localhost:{other}/",
        "http://localhost:{port}/",
        "https://someone:secret@localhost:{port}/",
        "https://localhost:{port}@elsewhere.example/",
        "https://127.0.0.1:{port}/",
        "https://localhost.:{port}/",
        "https://localhost:99999999/",
        "//localhost:{port}/",
        "localhost",
        "",
    ],
)
async def test_a_destination_that_is_not_on_the_list_is_not_even_looked_up(
    tls: ssl.SSLContext, trust: Path, url: str
) -> None:
    async def nobody(host: str, port: int) -> Sequence[str]:
        raise AssertionError(f"{host} was looked up")

    async with scripted(always_ok, tls) as server:
        allowed = [Destination(host="localhost", port=server.port, loopback_ok=True)]
        async with Outbound(allowed=allowed, trust=trust, resolver=nobody) as outbound:
            with pytest.raises(NotSent) as failure:
                await outbound.request("GET", url.format(port=server.port, other=server.port - 1))
        assert failure.value.code == "OUTBOUND_DESTINATION_NOT_ALLOWED"
        assert server.connections == 0


async def test_a_name_that_leads_to_this_machine_is_refused(tls: ssl.SSLContext, trust: Path) -> None:
    async with (
        scripted(always_ok, tls) as server,
        Outbound(allowed=[Destination(host="localhost", port=server.port)], trust=trust) as outbound,
    ):
        with pytest.raises(NotSent) as failure:
            await outbound.request("GET", f"https://localhost:{server.port}/")
        assert failure.value.code == "OUTBOUND_ADDRESS_NOT_ALLOWED"
        assert server.connections == 0


@pytest.mark.parametrize("address", ["10.1.2.3", "169.254.169.254", "fd00::1"])
async def test_a_private_address_is_refused_behind_a_name_and_on_its_own(trust: Path, address: str) -> None:
    async def rebound(host: str, port: int) -> Sequence[str]:
        return ["8.8.8.8", address]

    for host, resolver in (("provider.example", rebound), (address, None)):
        allowed = [Destination(host=host, loopback_ok=True)]
        outbound = (
            Outbound(allowed=allowed, trust=trust, resolver=resolver)
            if resolver
            else Outbound(allowed=allowed, trust=trust)
        )
        literal = f"[{host}]" if ":" in host else host
        async with outbound:
            with pytest.raises(NotSent) as failure:
                await outbound.request("GET", f"https://{literal}/")
        assert failure.value.code == "OUTBOUND_ADDRESS_NOT_ALLOWED"
        assert address in str(failure.value)


async def test_the_address_that_was_checked_is_the_one_that_is_dialled(tls: ssl.SSLContext, trust: Path) -> None:
    """A name that answers differently the second time (DNS rebinding) gets no second time."""
    asked: list[str] = []

    async def rebinding(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    async with scripted(always_ok, tls) as server:
        allowed = [Destination(host="provider.example", port=server.port, loopback_ok=True)]
        async with Outbound(allowed=allowed, trust=trust, limits=QUICK, resolver=rebinding) as outbound:
            url = f"https://provider.example:{server.port}/"
            assert [(await outbound.request("GET", url)).status for _ in range(2)] == [200, 200]
    assert asked == ["provider.example"]


async def test_the_next_address_is_tried_when_the_first_does_not_take_the_connection(
    tls: ssl.SSLContext, trust: Path
) -> None:
    async def two(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.2", "127.0.0.1"]

    async with scripted(always_ok, tls) as server:
        allowed = [Destination(host="localhost", port=server.port, loopback_ok=True)]
        async with Outbound(allowed=allowed, trust=trust, resolver=two) as outbound:
            assert (await outbound.request("GET", f"https://localhost:{server.port}/")).status == 200


async def test_a_name_that_does_not_exist(trust: Path) -> None:
    async with Outbound(allowed=[Destination(host="nobody.invalid")], trust=trust) as outbound:
        with pytest.raises(NotSent) as failure:
            await outbound.request("GET", "https://nobody.invalid/")
    assert failure.value.code == "OUTBOUND_NAME_NOT_RESOLVED"


async def test_a_name_server_that_does_not_answer(trust: Path) -> None:
    async def stuck(host: str, port: int) -> Sequence[str]:
        await asyncio.sleep(60)
        return []

    limits = Limits(total_s=0.3)
    allowed = [Destination(host="provider.example")]
    async with Outbound(allowed=allowed, trust=trust, limits=limits, resolver=stuck) as outbound:
        with pytest.raises(NotSent) as failure:
            await outbound.request("GET", "https://provider.example/")
    assert failure.value.code == "OUTBOUND_NAME_NOT_RESOLVED"


async def test_a_port_where_nobody_listens(trust: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        async with client(port, trust) as outbound:
            with pytest.raises(NotSent) as failure:
                await outbound.request("POST", f"https://localhost:{port}/", body=b"money")
    assert failure.value.code == "OUTBOUND_NOT_CONNECTED"


async def test_a_server_that_takes_connections_and_never_shakes_hands(trust: Path) -> None:
    async def silent(peer: Peer) -> None:
        await asyncio.sleep(60)

    with pytest.raises(NotSent) as failure:
        await post(silent, None, trust, QUICK)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


async def test_a_server_that_closes_every_connection_at_once(trust: Path) -> None:
    async def closing(peer: Peer) -> None:
        peer.reset()

    with pytest.raises(NotSent) as failure:
        await post(closing, None, trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


async def test_what_was_said_in_clear_before_the_handshake_is_never_taken_for_secured(tls: ssl.SSLContext) -> None:
    async def forward(peer: Peer) -> None:
        await peer.say(OK)
        await asyncio.sleep(60)

    async with scripted(forward, None) as server, asyncio.timeout(5):
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", server.port)
        await asyncio.sleep(0.2)
        assert wire.has_news
        with pytest.raises(ConnectionResetError, match="before the handshake"):
            await wire.secure(tls_context(None), "localhost")
        wire.transport.abort()


async def test_plain_http_on_the_port(trust: Path) -> None:
    seen: list[bytes] = []

    async def plain(peer: Peer) -> None:
        seen.append(await peer.reader.read(4096))
        await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    with pytest.raises(NotSent) as failure:
        await post(plain, None, trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"
    assert b"money" not in seen[0]


async def test_a_certificate_by_somebody_else(stranger: Authority, trust: Path) -> None:
    with pytest.raises(NotSent) as failure:
        await post(always_ok, stranger.issue("localhost").server_context(), trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"
    assert "certificate" in str(failure.value).lower()


async def test_a_certificate_for_another_name(authority: Authority, trust: Path) -> None:
    with pytest.raises(NotSent) as failure:
        await post(always_ok, authority.issue("other.example").server_context(), trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


async def test_a_certificate_that_only_the_test_trusts_is_refused_by_the_systems_authorities(
    tls: ssl.SSLContext,
) -> None:
    async with scripted(always_ok, tls) as server:
        allowed = [Destination(host="localhost", port=server.port, loopback_ok=True)]
        async with Outbound(allowed=allowed, limits=QUICK) as outbound:
            with pytest.raises(NotSent) as failure:
                await outbound.request("GET", f"https://localhost:{server.port}/")
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
async def test_tls_1_1_is_not_spoken(authority: Authority, trust: Path) -> None:
    old = authority.issue("localhost").server_context()
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(NotSent) as failure:
        await post(always_ok, old, trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


async def test_a_suite_without_authenticated_encryption_is_not_spoken(authority: Authority, trust: Path) -> None:
    weak = authority.issue("localhost").server_context()
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("ECDHE-ECDSA-AES256-SHA384")
    with pytest.raises(NotSent) as failure:
        await post(always_ok, weak, trust)
    assert failure.value.code == "OUTBOUND_TLS_FAILED"


@pytest.mark.parametrize(
    ("path", "header"), [("/a b", "fine"), ("/ä", "fine"), ("/", "split\r\nx-injected: yes"), ("/", "nul\0")]
)
async def test_a_request_that_would_not_be_one(tls: ssl.SSLContext, trust: Path, path: str, header: str) -> None:
    async with scripted(always_ok, tls) as server, client(server.port, trust) as outbound:
        with pytest.raises(NotSent) as failure:
            await outbound.request("GET", f"https://localhost:{server.port}{path}", headers={"x-mine": header})
        assert failure.value.code == "OUTBOUND_REQUEST_INVALID"
        assert server.requests == []


async def test_waiting_for_a_turn_that_does_not_come(trust: Path) -> None:
    async def lingering(host: str, port: int) -> Sequence[str]:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.3)  # keeps its turn for longer than the next one waits
        return []

    limits = Limits(total_s=0.3, connections=1)
    allowed = [Destination(host="provider.example")]
    async with Outbound(allowed=allowed, trust=trust, limits=limits, resolver=lingering) as outbound:
        both = (outbound.request("POST", "https://provider.example/", body=b"money") for _ in range(2))
        first, second = await asyncio.gather(*both, return_exceptions=True)
    assert isinstance(first, NotSent)
    assert isinstance(second, NotSent)
    assert (first.code, second.code) == ("OUTBOUND_NAME_NOT_RESOLVED", "OUTBOUND_BUSY")


async def test_no_more_connections_than_allowed_are_in_use_at_once(tls: ssl.SSLContext, trust: Path) -> None:
    async def slow(peer: Peer) -> None:
        while await peer.request():
            await asyncio.sleep(0.05)
            await peer.say(OK)

    limits = Limits(connections=2)
    async with scripted(slow, tls) as server, client(server.port, trust, limits) as outbound:
        url = f"https://localhost:{server.port}/"
        answers = await asyncio.gather(*(outbound.request("GET", url) for _ in range(8)))
        assert len(answers) == len(server.requests) == 8
        assert server.connections == 2


# Bytes may have left


async def reset_after_request(peer: Peer) -> None:
    await peer.request()
    peer.reset()


async def close_after_request(peer: Peer) -> None:
    await peer.request()


async def reset_within_request(peer: Peer) -> None:
    await peer.reader.read(1)
    peer.reset()


async def half_a_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\ncontent-le")


async def half_a_body(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")


async def half_a_chunk(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n64\r\nhalf")


async def body_without_an_end(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\n\r\nmaybe all of it")


async def nonsense(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")


async def two_lengths(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 4\r\n\r\nokok")


@pytest.mark.parametrize(
    "script",
    [
        reset_after_request,
        close_after_request,
        reset_within_request,
        half_a_head,
        half_a_body,
        half_a_chunk,
        body_without_an_end,
        nonsense,
        two_lengths,
    ],
)
async def test_an_answer_that_is_not_whole(tls: ssl.SSLContext, trust: Path, script: Script) -> None:
    with pytest.raises(NoAnswer) as failure:
        await post(script, tls, trust)
    assert failure.value.code == "OUTBOUND_ANSWER_BROKEN"


async def silence(peer: Peer) -> None:
    await peer.request()
    await asyncio.sleep(60)


async def drip_in_body(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    while True:
        await peer.say(b".")
        await asyncio.sleep(0.05)


async def drip_in_head(peer: Peer) -> None:
    await peer.request()
    await peer.say(b"HTTP/1.1 200 OK\r\nx: ")
    while True:
        await peer.say(b".")
        await asyncio.sleep(0.05)


async def endless_interim_answers(peer: Peer) -> None:
    await peer.request()
    while True:
        await peer.say(b"HTTP/1.1 102 Processing\r\n\r\n")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("script", [silence, drip_in_body, drip_in_head, endless_interim_answers])
async def test_an_answer_that_comes_too_slowly(tls: ssl.SSLContext, trust: Path, script: Script) -> None:
    begun = time.monotonic()
    with pytest.raises(NoAnswer) as failure:
        await post(script, tls, trust, QUICK)
    assert failure.value.code == "OUTBOUND_ANSWER_LATE"
    assert time.monotonic() - begun < 10 * QUICK.total_s


@pytest.mark.parametrize("framing", [b"content-length: 5000\r\n\r\n", b"transfer-encoding: chunked\r\n\r\n1388\r\n"])
async def test_an_answer_that_is_too_large(tls: ssl.SSLContext, trust: Path, framing: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n" + framing + b"x" * 5000)
        await asyncio.sleep(60)

    with pytest.raises(NoAnswer) as failure:
        await post(script, tls, trust)
    assert failure.value.code == "OUTBOUND_ANSWER_TOO_LARGE"


async def test_headers_without_end_are_cut_off(tls: ssl.SSLContext, trust: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\n")
        while True:
            await peer.say(b"x-more: " + b"y" * 8192 + b"\r\n")

    with pytest.raises(NoAnswer) as failure:
        await post(script, tls, trust)
    assert failure.value.code == "OUTBOUND_ANSWER_BROKEN"


async def test_a_kept_connection_that_breaks_under_the_next_request_counts_as_unknown(
    tls: ssl.SSLContext, trust: Path
) -> None:
    """The server reads the second request, maybe acts on it, and goes: nobody may send it again by themselves."""

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)
        await peer.request()
        peer.reset()

    async with scripted(script, tls) as server, client(server.port, trust) as outbound:
        url = f"https://localhost:{server.port}/"
        assert (await outbound.request("POST", url, body=b"one")).status == 200
        with pytest.raises(NoAnswer):
            await outbound.request("POST", url, body=b"two")
        assert [request[-3:] for request in server.requests] == [b"one", b"two"]


async def test_a_kept_connection_that_was_closed_meanwhile_is_replaced_before_anything_is_sent(
    tls: ssl.SSLContext, trust: Path
) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK)

    async with scripted(script, tls) as server, client(server.port, trust) as outbound:
        url = f"https://localhost:{server.port}/"
        for _ in range(3):
            assert (await outbound.request("POST", url, body=b"one")).status == 200
            await asyncio.sleep(0.1)
        assert server.connections == 3


@pytest.mark.parametrize("is_at_once", [True, False])
async def test_an_answer_nobody_asked_for_is_not_taken_for_the_next_one(
    tls: ssl.SSLContext, trust: Path, is_at_once: bool
) -> None:
    """An answer smuggled behind another would be read as "paid" by the request that comes next."""
    extra = OK.replace(b"ok", b"no")

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            answer = OK.replace(b"ok", request[-2:])
            await peer.say(answer + extra if is_at_once else answer)
            await asyncio.sleep(0.05)
            await peer.say(extra)

    async with scripted(script, tls) as server, client(server.port, trust) as outbound:
        for body in (b"m1", b"m2", b"m3"):
            answer = await outbound.request("POST", f"https://localhost:{server.port}/", body=body)
            assert answer.body == body
            await asyncio.sleep(0 if is_at_once else 0.15)


async def test_a_broken_request_leaves_nothing_behind_for_the_next(tls: ssl.SSLContext, trust: Path) -> None:
    """After failures and a cancellation the pool still has all of its connections to give."""

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if b"hang" in request:
                await asyncio.sleep(60)
            await peer.say(OK)

    limits = Limits(connect_s=1.0, idle_s=0.2, total_s=1.0, connections=2)
    async with scripted(script, tls) as server, client(server.port, trust, limits) as outbound:
        url = f"https://localhost:{server.port}/"
        for _ in range(3):
            with pytest.raises(NoAnswer):
                await outbound.request("GET", url + "hang")
            task = asyncio.create_task(outbound.request("GET", url + "hang"))
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        answers = await asyncio.gather(*(outbound.request("GET", url) for _ in range(8)))
    assert [answer.status for answer in answers] == [200] * 8


async def test_failures_name_the_destination_and_nothing_of_the_request(tls: ssl.SSLContext, trust: Path) -> None:
    async with scripted(reset_after_request, tls) as server, client(server.port, trust) as outbound:
        with pytest.raises(NoAnswer) as failure:
            await outbound.request(
                "POST",
                f"https://localhost:{server.port}/people/anna?iban=DE00",
                headers={"authorization": "Bearer secret"},
                body=b"money",
            )
    said = f"{failure.value} {failure.value.failures}"
    assert f"localhost:{server.port}" in said
    assert not any(word in said for word in ("anna", "DE00", "secret", "money"))

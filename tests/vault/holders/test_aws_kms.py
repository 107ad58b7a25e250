"""AWS KMS: what is sent, and what each refusal of AWS's comes to. The wire is moto's server's, or a scripted one's."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from strongroom.kernel.errors import Broken, Invalid
from strongroom.kernel.secret import Secret
from strongroom.vault.holders import HeldState, KeyUnavailable, Reason, _calls
from strongroom.vault.holders._calls import Calls
from strongroom.vault.holders.aws_kms import AwsKmsHolder
from tests.rails.simulator.process import free_port
from tests.vault.holders.conftest import Kms

KEY = bytes(range(32))
CONTEXT = b"\x00context\xff"
KEY_ID = "4b1a2f6e-0d0f-4a57-9a3a-1f6d0c9b8e77"
ARN = f"arn:aws:kms:eu-central-1:123456789012:key/{KEY_ID}"
ENABLED = {"KeyMetadata": {"KeyId": KEY_ID, "Arn": ARN, "KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT"}}


class Scripted:
    """A server that answers each of KMS's actions as it is told, and keeps what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {"DescribeKey": (200, ENABLED)}
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.goes_on = threading.Event()
        self.goes_on.set()

    def answer(self, action: str, request: dict[str, Any]) -> tuple[int, bytes]:
        self.asked.append((action, request))
        self.goes_on.wait()
        status, content = self.answers[action]
        return status, content if isinstance(content, bytes) else json.dumps(content).encode()


@contextmanager
def served(scripted: Scripted) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            action = self.headers["x-amz-target"].rpartition(".")[2]
            status, body = scripted.answer(action, json.loads(content))
            self.send_response(status)
            self.send_header("content-type", "application/x-amz-json-1.1")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


@pytest.fixture
async def holder(scripted: Scripted, kms: Kms) -> AsyncIterator[AwsKmsHolder]:
    with served(scripted) as url:
        found = kms.holder(url=url)
        yield found
        await found.close()


async def test_the_context_goes_as_encryption_context(scripted: Scripted, holder: AwsKmsHolder) -> None:
    scripted.answers["Encrypt"] = (200, {"CiphertextBlob": "QUJD" * 20, "KeyId": ARN})
    assert await holder.wrap(KEY_ID, Secret(KEY), CONTEXT) == b"ABC" * 20
    action, request = scripted.asked[-1]
    assert action == "Encrypt"
    assert request["KeyId"] == KEY_ID
    assert request["EncryptionContext"] == {"strongroom": CONTEXT.hex()}
    assert [action for action, _ in scripted.asked] == ["DescribeKey", "Encrypt"]


async def test_a_key_that_waits_for_its_deletion_is_not_used_though_it_still_would_work(kms: Kms) -> None:
    key, holder = kms.make(), kms.holder()
    wrapped = await holder.wrap(key, Secret(KEY), CONTEXT)
    kms.client.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    raw = kms.client.decrypt(KeyId=key, CiphertextBlob=wrapped, EncryptionContext={"strongroom": CONTEXT.hex()})
    assert raw["Plaintext"] == KEY
    with pytest.raises(KeyUnavailable) as refused:
        await holder.unwrap(key, wrapped, CONTEXT)
    assert refused.value.reason is Reason.DISABLED
    kms.client.cancel_key_deletion(KeyId=key)
    kms.client.enable_key(KeyId=key)
    assert (await holder.unwrap(key, wrapped, CONTEXT)).reveal() == KEY
    await holder.close()


async def test_a_key_is_named_by_its_arn_as_well(kms: Kms) -> None:
    key, holder = kms.make(), kms.holder()
    arn = kms.client.describe_key(KeyId=key)["KeyMetadata"]["Arn"]
    wrapped = await holder.wrap(arn, Secret(KEY), CONTEXT)
    assert (await holder.unwrap(key, wrapped, CONTEXT)).reveal() == KEY
    await holder.close()


@pytest.mark.parametrize(
    "reference", ["", "alias/mine", "arn:aws:kms:eu-central-1:1:alias/mine", "arn:aws:s3:::key/x", "a b", "x" * 2050]
)
async def test_aliases_and_other_names_are_refused(holder: AwsKmsHolder, scripted: Scripted, reference: str) -> None:
    with pytest.raises(Invalid) as refused:
        await holder.wrap(reference, Secret(KEY), CONTEXT)
    assert refused.value.code == "KEY_REFERENCE_INVALID"
    assert scripted.asked == []


async def test_keys_of_another_kind_are_told_and_not_used(kms: Kms) -> None:
    key, holder = kms.make(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT"), kms.holder()
    assert (await holder.describe(key)).algorithm == "RSA_2048"
    with pytest.raises(KeyUnavailable) as refused:
        await holder.wrap(key, Secret(KEY), CONTEXT)
    assert refused.value.reason is Reason.UNFIT
    await holder.close()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("DisabledException", Reason.DISABLED),
        ("KMSInvalidStateException", Reason.DISABLED),
        ("NotFoundException", Reason.GONE),
        ("AccessDeniedException", Reason.DENIED),
        ("UnrecognizedClientException", Reason.DENIED),
        ("ExpiredTokenException", Reason.DENIED),
        ("ThrottlingException", Reason.THROTTLED),
        ("LimitExceededException", Reason.THROTTLED),
        ("DependencyTimeoutException", Reason.SLOW),
        ("KMSInternalException", Reason.AWAY),
        ("SomethingNewException", Reason.AWAY),
    ],
)
async def test_each_refusal_has_its_reason_and_nothing_is_retried(
    holder: AwsKmsHolder, scripted: Scripted, code: str, reason: Reason
) -> None:
    refusal = (400, {"__type": code, "message": "as the manual says"})
    for action in ("Encrypt", "Decrypt"):
        scripted.answers[action] = refusal
    with pytest.raises(KeyUnavailable) as refused:
        await holder.wrap(KEY_ID, Secret(KEY), CONTEXT)
    assert refused.value.reason is reason
    assert code in str(refused.value)
    assert [action for action, _ in scripted.asked] == ["DescribeKey", "Encrypt"]
    with pytest.raises(KeyUnavailable) as refused:
        await holder.unwrap(KEY_ID, bytes(100), CONTEXT)
    assert refused.value.reason is reason


@pytest.mark.parametrize("code", ["InvalidCiphertextException", "IncorrectKeyException"])
async def test_a_ciphertext_that_is_no_good_is_broken(holder: AwsKmsHolder, scripted: Scripted, code: str) -> None:
    scripted.answers["Decrypt"] = (400, {"__type": code})
    with pytest.raises(Broken) as refused:
        await holder.unwrap(KEY_ID, bytes(100), CONTEXT)
    assert refused.value.code == "DATA_KEY_BROKEN"


@pytest.mark.parametrize(
    ("state", "held"),
    [
        ("Enabled", HeldState.ENABLED),
        ("Disabled", HeldState.DISABLED),
        ("PendingDeletion", HeldState.DISABLED),
        ("PendingImport", HeldState.DISABLED),
    ],
)
async def test_each_state_is_told(holder: AwsKmsHolder, scripted: Scripted, state: str, held: HeldState) -> None:
    scripted.answers["DescribeKey"] = (200, {"KeyMetadata": {**ENABLED["KeyMetadata"], "KeyState": state}})
    assert (await holder.describe(KEY_ID)).state is held


@pytest.mark.parametrize("state", ["Unavailable", "SomethingNew", ""])
async def test_a_state_that_says_nothing_of_the_key_is_a_holder_that_is_away(
    holder: AwsKmsHolder, scripted: Scripted, state: str
) -> None:
    scripted.answers["DescribeKey"] = (200, {"KeyMetadata": {**ENABLED["KeyMetadata"], "KeyState": state}})
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(KEY_ID)
    assert refused.value.reason is Reason.AWAY


@pytest.mark.parametrize(
    "answer",
    [
        {"Plaintext": "QUJD", "KeyId": ARN},
        {"Plaintext": "", "KeyId": ARN},
        {"KeyId": ARN},
        b"<html>hello</html>",
        b'{"Plaintext": ',
        b"[]",
        b"",
    ],
)
async def test_an_answer_that_cannot_be_is_no_key(holder: AwsKmsHolder, scripted: Scripted, answer: Any) -> None:
    scripted.answers["Decrypt"] = (200, answer)
    with pytest.raises(KeyUnavailable) as refused:
        await holder.unwrap(KEY_ID, bytes(100), CONTEXT)
    assert refused.value.reason is Reason.NONSENSE


async def test_what_another_key_opened_is_not_taken(holder: AwsKmsHolder, scripted: Scripted) -> None:
    scripted.answers["Decrypt"] = (200, {"Plaintext": "QUJD" * 10 + "QUE=", "KeyId": ARN[:-1] + "8"})
    with pytest.raises(Broken):
        await holder.unwrap(KEY_ID, bytes(100), CONTEXT)


async def test_a_garbled_description_is_nonsense(holder: AwsKmsHolder, scripted: Scripted) -> None:
    scripted.answers["DescribeKey"] = (200, {"hello": "world"})
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(KEY_ID)
    assert refused.value.reason is Reason.NONSENSE


async def test_nobody_there_is_away(kms: Kms) -> None:
    holder = kms.holder(url=f"http://127.0.0.1:{free_port()}")
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(KEY_ID)
    assert refused.value.reason is Reason.AWAY
    await holder.close()


async def test_no_credentials_are_a_denial(kms: Kms, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    holder = kms.holder()
    with pytest.raises(KeyUnavailable) as refused:
        await holder.describe(KEY_ID)
    assert refused.value.reason is Reason.DENIED
    await holder.close()


async def test_an_answer_that_comes_too_late_is_not_waited_for(scripted: Scripted, kms: Kms) -> None:
    """Not even by those who come later. None of the answers comes before all were told."""
    with served(scripted) as url:
        holder = kms.holder(url=url, limit_s=0.5)
        assert await state_in_the_end(holder) is HeldState.ENABLED
        scripted.goes_on.clear()
        try:
            outcomes = await asyncio.gather(*(holder.describe(KEY_ID) for _ in range(12)), return_exceptions=True)
        finally:
            scripted.goes_on.set()
        assert [outcome.reason for outcome in outcomes if isinstance(outcome, KeyUnavailable)] == [Reason.SLOW] * 12
        assert await state_in_the_end(holder) is HeldState.ENABLED
        await holder.close()


async def state_in_the_end(holder: AwsKmsHolder) -> HeldState:
    """The key's state, when threads are back from where nothing came back, and the machine finds time."""
    while True:
        try:
            return (await holder.describe(KEY_ID)).state
        except KeyUnavailable:
            await asyncio.sleep(0.05)


async def test_calls_that_hang_are_bounded() -> None:
    gate = threading.Event()
    calls = Calls("aws", threads=2, limit_s=0.2)
    outcomes = await asyncio.gather(*(calls.call(gate.wait) for _ in range(2)), return_exceptions=True)
    assert all(isinstance(outcome, KeyUnavailable) for outcome in outcomes)
    with pytest.raises(KeyUnavailable, match="haven't come back"):  # said without waiting
        await calls.call(gate.wait)
    gate.set()
    await asyncio.sleep(0.2)
    assert await calls.call(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await calls.call(lambda: 1 // 0)
    calls.close()
    with pytest.raises(KeyUnavailable):
        await calls.call(lambda: 7)


async def test_too_many_calls_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "MAX_WAITING", 2)
    gate = threading.Event()
    calls = Calls("aws", threads=1, limit_s=5.0)
    first = asyncio.ensure_future(calls.call(gate.wait))
    await asyncio.sleep(0.1)
    waiting = [asyncio.ensure_future(calls.call(lambda: 7)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(KeyUnavailable) as refused:
        await calls.call(lambda: 7)
    assert "too many" in str(refused.value)
    gate.set()
    assert await first is True
    assert await asyncio.gather(*waiting) == [7, 7]
    calls.close()

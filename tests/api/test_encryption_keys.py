"""Encryption keys over the API: what their owner sees and does, and everything that is refused, with its code."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from strongroom.api.idempotency import TAKEN_OVER_AFTER
from strongroom.api.table import ROUTES
from strongroom.assembly import SPLITS
from strongroom.kernel.actors import Actor
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Failure, Unavailable
from strongroom.kernel.ids import AccountId
from strongroom.vault import KeyDesk, Layer, Scope, Work
from strongroom.vault.holders.contract import Reason
from tests.api.paying import codes, make_account, refusal
from tests.fixtures.platform import Client, Platform
from tests.guards.golden import GOLDEN
from tests.payments.world import World
from tests.vault.conftest import allowed, clock, elsewhere, far, near
from tests.vault.holding import Elsewhere

__all__ = ["allowed", "clock", "elsewhere", "far", "near"]
pytestmark = pytest.mark.usefixtures("one_pair")
WITHIN_S = 5.0
"""How long a disabled key may still be used anywhere."""
PATH = "/encryption-keys"
DECLARED = {(route.method, route.path): set(route.codes) for route in ROUTES if PATH in route.path}
ANYWHERE = {
    "IDEMPOTENCY_KEY_REUSED",
    "IDEMPOTENCY_KEY_IN_FLIGHT",
    "IDEMPOTENCY_ANSWER_LOST",
    "FORBIDDEN",
    "TENANT_NOT_FOUND",
    "REQUEST_BODY_IS_REQUIRED",
}
"""Codes that every route of its kind may answer."""


@dataclass(frozen=True)
class Keys:
    """A tenant's keys as somebody reaches them, and a colleague with a key of their own."""

    platform: Platform
    tenant: Client
    client: Client
    colleague: Client
    base: str

    async def get(self, path: str = "", *, by: Client | None = None) -> httpx.Response:
        return self._checked("GET", path, await (by or self.client).get(self.base + path))

    async def post(self, path: str, json: Any = None, *, by: Client | None = None, **options: Any) -> httpx.Response:
        return self._checked("POST", path, await (by or self.client).post(self.base + path, json, **options))

    async def rotate(self, layer: str, key: str, **options: Any) -> httpx.Response:
        return await self.post("/rotations", {"layer": layer, "key": key}, **options)

    async def finish(self) -> None:
        """As the worker does, again and again."""
        await self.platform.app.key_desk.tend(self.scope, SPLITS)

    @property
    def scope(self) -> Scope:
        world = World.of(self.platform.app, self.tenant)
        return Scope(account=world.account, tenant=world.tenant)

    async def states(self, layer: str = "customer") -> list[tuple[int, str, str]]:
        """Version, state and source of the layer's scope keys."""
        keys = (await self.get()).json()["scopeKeys"]
        return [(key["version"], key["state"], key["source"]) for key in keys if key["layer"] == layer]

    async def iban(self, by: Client | None = None) -> httpx.Response:
        """What needs the customer's key: a payment account taken into the vault."""
        body = {"type": "BANK_ACCOUNT", "accountHolderName": "Erika Mustermann", "iban": "DE89370400440532013000"}
        return await (by or self.tenant).post(f"/v1/customer-vault/c-{os.urandom(4).hex()}/financial-instrument", body)

    def _checked(self, method: str, path: str, answer: httpx.Response) -> httpx.Response:
        """No answer has a code that its route doesn't declare."""
        if answer.status_code >= 400:
            declared = next(
                found
                for (verb, route), found in DECLARED.items()
                if verb == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", route), self.base + path)
            )
            assert set(codes(answer)) <= declared | ANYWHERE, (path, codes(answer))
        return answer


@pytest.fixture(params=["tenant", "account"])
async def keys(near: Platform, allowed: set[UUID], request: pytest.FixtureRequest) -> Keys:
    """A new tenant's keys, as the tenant itself reaches them, and as its account does."""
    account = await near.new_account()
    tenant = await account.new_tenant()
    allowed.add(UUID(account.account_id))
    if request.param == "tenant":
        colleague = await tenant.new_key("tenant-encryption-key-write")
        return Keys(near, tenant, tenant, colleague, f"/v1/tenant{PATH}")
    colleague = await account.new_key("account-encryption-key-write")
    return Keys(near, tenant, account, colleague, f"/v1/tenant/{tenant.tenant_id}{PATH}")


async def until(status: int, attempt: Callable[[], Awaitable[httpx.Response]]) -> httpx.Response:
    """The first answer with this status, which comes within the time that is promised."""
    began = time.monotonic()
    while time.monotonic() - began < WITHIN_S:
        answer = await attempt()
        if answer.status_code == status:
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"not within {WITHIN_S} s, but {answer.status_code} {answer.text}")


async def sign_in_at(clock: ManualClock, *clients: Client) -> None:
    """Sign in again when a token's time has passed by the clock."""
    for client in clients:
        assert (await client.sign_in(epoch=f"{clock.now().timestamp():.3f}")).status_code == 201


def seen_by(platform: Platform, client: Client) -> Client:
    """The same client, at another process."""
    return Client(
        http=platform.http,
        account_id=client.account_id,
        tenant_id=client.tenant_id,
        public_key=client.public_key,
        private_key=client.private_key,
    )


def test_every_code_that_a_route_declares_is_one() -> None:
    known = set((GOLDEN / "error_codes.txt").read_text().split())
    assert {code for found in DECLARED.values() for code in found} <= known
    for level in ("/v1/tenant/{tenantId}", "/v1/account"):
        for (method, path), found in DECLARED.items():
            if path.startswith(level + PATH):
                assert found == DECLARED[method, path.replace(level, "/v1/tenant")]


async def test_all_keys_are_listed_without_their_values(keys: Keys) -> None:
    body = (await keys.get()).json()
    assert body["_links"] == {
        "self": {"href": keys.base},
        "rotations": {"href": f"{keys.base}/rotations"},
        "holders": {"href": f"{keys.base}/holders"},
    }
    customer, platform = body["scopeKeys"]
    created, expires = (datetime.fromisoformat(customer[name]) for name in ("createdOn", "expiresOn"))
    assert (expires - created).days == 730
    assert {name: value for name, value in customer.items() if not name.endswith("On")} == {
        "_links": {"self": {"href": f"{keys.base}/customer/versions/1"}},
        "layer": "customer",
        "version": 1,
        "purpose": "wrap",
        "state": "ACTIVE",
        "source": "kept",
        "holder": "file",
        "reference": None,
        "rotationDue": False,
        "destruction": None,
    }
    assert (platform["layer"], platform["version"], platform["state"]) == ("platform", 1, "ACTIVE")
    assert [(key["layer"], key["purpose"], key["version"], key["scopeKeyVersion"]) for key in body["dataKeys"]] == [
        ("customer", "seal", 1, 1),
        ("platform", "index", 1, 1),
        ("platform", "seal", 1, 1),
        ("platform", "search", 1, 1),
    ]
    assert body["rotation"] is None


async def test_one_key_is_shown_by_its_links(keys: Keys) -> None:
    for key in (await keys.get()).json()["scopeKeys"]:
        shown = await keys.client.get(key["_links"]["self"]["href"])
        assert (shown.status_code, shown.json()) == (200, key)
        assert (await keys.get(f"/{key['layer']}")).json() == key
    for path in ("/nobody", "/customer/versions/2", "/customer/versions/x", "/nobody/versions/1"):
        assert refusal(await keys.get(path)) == (400, ["KEY_NOT_FOUND"])


async def test_a_key_past_its_cryptoperiod_is_due(keys: Keys, clock: ManualClock) -> None:
    clock.advance(timedelta(days=366))
    await sign_in_at(clock, keys.client)
    body = (await keys.get()).json()
    assert [key["rotationDue"] for key in body["scopeKeys"]] == [False, False]
    assert {key["rotationDue"] for key in body["dataKeys"] if key["purpose"] == "seal"} == {True}


@pytest.mark.parametrize(("layer", "key"), [("customer", "scope"), ("platform", "scope"), ("customer", "data")])
async def test_rotating(keys: Keys, layer: str, key: str) -> None:
    instrument = await make_account(keys.tenant)
    begun = await keys.rotate(layer, key)
    assert begun.status_code == 202
    rotation = begun.json()
    assert (rotation["kind"], rotation["layer"], rotation["version"], rotation["status"]) == (
        "rewrap" if key == "scope" else "re-encrypt", layer, 2, "RUNNING",
    )  # fmt: skip
    place = rotation["_links"]["self"]["href"]
    shown = (await keys.client.get(place)).json()
    assert shown["total"] >= (1 if key == "scope" else 5)
    assert (await keys.get()).json()["rotation"] == {**shown, "total": None}
    assert refusal(await keys.rotate(layer, key)) == (400, ["KEY_WORK_RUNNING"])
    assert refusal(await keys.post("/customer/destroy", {"version": (await keys.states())[-1][0]})) == (
        400, ["KEY_WORK_RUNNING"],
    )  # fmt: skip
    await keys.finish()
    done = (await keys.client.get(place)).json()
    assert (done["status"], done["total"]) == ("DONE", None)
    assert done["done"] >= 1
    assert (await keys.get()).json()["rotation"] is None
    assert [each["rotationId"] for each in (await keys.get("/rotations")).json()["rotations"]] == [done["rotationId"]]
    assert (await keys.tenant.get(f"/v1/customer-vault/c-1/financial-instrument/{instrument}")).status_code == 200


async def test_rotating_the_search_key(keys: Keys) -> None:
    assert refusal(await keys.rotate("customer", "search")) == (400, ["KEY_NOT_FOUND"])
    begun = (await keys.rotate("platform", "search")).json()
    assert (begun["kind"], begun["version"], begun["status"]) == ("re-index", 2, "RUNNING")
    assert (await keys.client.get(begun["_links"]["self"]["href"])).json()["total"] is None
    await keys.finish()
    assert (await keys.client.get(begun["_links"]["self"]["href"])).json()["status"] == "DONE"


async def test_what_is_wrong_with_a_rotation(keys: Keys) -> None:
    assert refusal(await keys.post("/rotations", {})) == (400, ["LAYER_IS_REQUIRED", "KEY_IS_REQUIRED"])
    assert refusal(await keys.rotate("x", "y")) == (400, ["LAYER_NOT_RECOGNISED", "KEY_NOT_RECOGNISED"])
    for path in ("/rotations/x", "/rotations/00000000-0000-7000-8000-000000000000"):
        assert refusal(await keys.get(path)) == (400, ["KEY_WORK_NOT_FOUND"])
        assert refusal(await keys.post(f"{path}/stop")) == (400, ["KEY_WORK_NOT_FOUND"])


async def test_a_rotation_is_given_up(keys: Keys) -> None:
    rotation = (await keys.rotate("customer", "data")).json()["rotationId"]
    for _ in range(2):
        stopped = await keys.post(f"/rotations/{rotation}/stop")
        assert (stopped.status_code, stopped.json()["status"]) == (200, "DONE")
    assert (await keys.rotate("customer", "scope")).status_code == 202


async def test_a_repeated_request_rotates_once(keys: Keys) -> None:
    header = {"Idempotency-Key": "once"}
    first = await keys.rotate("customer", "scope", headers=header)
    again = await keys.rotate("customer", "scope", headers=header)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json() == first.json()
    assert again.headers["idempotency-replayed"] == "true"
    assert refusal(await keys.rotate("platform", "scope", headers=header)) == (422, ["IDEMPOTENCY_KEY_REUSED"])
    assert len((await keys.get("/rotations")).json()["rotations"]) == 1
    # A refusal isn't kept: the same request is carried out once nothing is in its way.
    other = {"Idempotency-Key": "twice"}
    assert refusal(await keys.rotate("customer", "scope", headers=other)) == (400, ["KEY_WORK_RUNNING"])
    await keys.finish()
    assert (await keys.rotate("customer", "scope", headers=other)).status_code == 202


async def test_a_request_that_is_being_worked_on_is_not_begun_twice(keys: Keys, elsewhere: Elsewhere) -> None:
    await attach(keys, elsewhere)
    elsewhere.delay_s = 0.3
    header = {"Idempotency-Key": "slow"}
    answers = await asyncio.gather(*(keys.client.post(f"{keys.base}/customer/test", headers=header) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 409]


async def test_a_request_that_was_cut_off_stays_in_flight_for_a_while(
    keys: Keys, elsewhere: Elsewhere, clock: ManualClock
) -> None:
    """Nobody knows how far it came, so the same key is neither answered nor carried out again; another one is."""
    await attach(keys, elsewhere)
    elsewhere.delay_s, asked, header = 1.0, elsewhere.asked, {"Idempotency-Key": "cut-off"}
    request = asyncio.create_task(keys.client.post(f"{keys.base}/customer/test", headers=header))
    for _ in range(1000):
        if elsewhere.asked > asked:
            break
        await asyncio.sleep(0.01)
    assert elsewhere.asked > asked
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    elsewhere.delay_s = 0.0
    again = await keys.client.post(f"{keys.base}/customer/test", headers=header)
    assert refusal(again) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
    assert (await keys.post("/customer/test", headers={"Idempotency-Key": "another"})).status_code == 200
    clock.advance(TAKEN_OVER_AFTER)
    assert refusal(await keys.rotate("customer", "scope", headers=header)) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
    taken_over = await keys.post("/customer/test", headers=header)
    assert taken_over.status_code == 200
    assert (await keys.post("/customer/test", headers=header)).json() == taken_over.json()


class Forgetful(KeyDesk):
    """A desk that loses the database right after its commit, or right before it."""

    async def rotate_scope_key(self, actor: Actor, scope: Scope, layer: Layer) -> Work:
        await super().rotate_scope_key(actor, scope, layer)
        raise unknown()

    async def rotate_data_key(self, actor: Actor, scope: Scope, layer: Layer) -> Work:
        del actor, scope, layer
        raise unknown()


def unknown() -> Unavailable:
    return Unavailable(Failure("OUTCOME_UNKNOWN", "It may or may not have been made."))


async def test_after_an_unknown_outcome_a_retry_finds_out(keys: Keys, clock: ManualClock) -> None:
    """It is in flight until nobody can be at work on it any more, and then done once, whichever way it went."""
    desk, parts = keys.platform.app.key_desk, keys.platform.app.surface._services.parts
    assert isinstance(parts, dict)
    for key, status, code in (("scope", 400, "IDEMPOTENCY_ANSWER_LOST"), ("data", 202, "")):
        header = {"Idempotency-Key": f"rotate-{key}"}
        parts[KeyDesk] = Forgetful(databases=desk.databases, keyring=desk.keyring, owner_key=desk.owner_key)
        body = {"layer": "platform", "key": key}
        unsure = await keys.client.post(f"{keys.base}/rotations", body, headers=header)
        assert refusal(unsure) == (503, ["OUTCOME_UNKNOWN"])
        parts[KeyDesk] = desk
        again = await keys.rotate("platform", key, headers=header)
        assert refusal(again) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
        clock.advance(TAKEN_OVER_AFTER)
        for _ in range(2):
            answer = await keys.client.post(f"{keys.base}/rotations", body, headers=header)
            assert answer.status_code == status, answer.text
            assert code in answer.text
        await keys.finish()
    rotations = (await keys.get("/rotations")).json()["rotations"]
    assert sorted(each["kind"] for each in rotations) == ["re-encrypt", "rewrap"]


async def test_an_attempt_whose_key_was_taken_over_makes_no_change(
    keys: Keys, elsewhere: Elsewhere, clock: ManualClock
) -> None:
    """The first hung, was given up by everybody, and comes back: too late, even where the second was refused."""
    header, body = {"Idempotency-Key": "slow"}, {"holder": "hsm", "reference": elsewhere.add("a")}
    elsewhere.delay_s, asked = 1.0, elsewhere.asked
    first = asyncio.create_task(keys.client.post(f"{keys.base}/customer/attach", body, headers=header))
    for _ in range(1000):
        if elsewhere.asked > asked:
            break
        await asyncio.sleep(0.01)
    clock.advance(TAKEN_OVER_AFTER)
    elsewhere.delay_s, elsewhere.wrong = 0.0, Reason.AWAY
    assert refusal(await keys.post("/customer/attach", body, headers=header)) == (503, ["KEY_UNAVAILABLE"])
    elsewhere.wrong = None
    assert refusal(await first) == (409, ["IDEMPOTENCY_KEY_IN_FLIGHT"])
    assert await keys.states() == [(1, "ACTIVE", "kept")]
    assert (await keys.post("/customer/attach", body, headers=header)).status_code == 202


async def attach(keys: Keys, elsewhere: Elsewhere) -> str:
    """Put a key that is held elsewhere in the place of the tenant's; its reference."""
    reference = elsewhere.add("claims")
    begun = await keys.post("/customer/attach", {"holder": "hsm", "reference": reference})
    assert begun.status_code == 202, begun.text
    await keys.finish()
    return reference


async def test_a_key_of_ones_own_is_attached_and_tested(keys: Keys, elsewhere: Elsewhere) -> None:
    assert (await keys.get("/holders")).json()["holders"] == ["hsm"]
    instrument = await make_account(keys.tenant)
    reference = await attach(keys, elsewhere)
    assert await keys.states() == [(1, "RETIRING", "kept"), (2, "ACTIVE", "held")]
    shown = (await keys.get("/customer")).json()
    assert (shown["holder"], shown["reference"]) == ("hsm", reference)
    tested = await keys.post("/customer/test")
    assert tested.status_code == 200
    body = tested.json()
    assert body.pop("milliseconds") > 0
    assert body == {"holder": "hsm", "algorithm": "AES-256", "extractable": False}
    assert (await keys.tenant.get(f"/v1/customer-vault/c-1/financial-instrument/{instrument}")).status_code == 200


async def test_what_can_not_be_attached(near: Platform, keys: Keys, elsewhere: Elsewhere, allowed: set[UUID]) -> None:
    def body(holder: object = "hsm", reference: object = "nobody's") -> dict[str, object]:
        return {"holder": holder, "reference": reference}

    for wrong, expected in (
        ({}, ["HOLDER_IS_REQUIRED", "REFERENCE_IS_REQUIRED"]),
        (body(1, 2), ["HOLDER_IS_INVALID", "REFERENCE_IS_INVALID"]),
        (body("x" * 33, "x" * 513), ["HOLDER_LENGTH_OUT_OF_RANGE", "REFERENCE_LENGTH_OUT_OF_RANGE"]),
        (body("a\u0001", "b\u0001"), ["HOLDER_CONTAINS_INVALID_CHARACTERS", "REFERENCE_CONTAINS_INVALID_CHARACTERS"]),
        (body("nowhere"), ["HOLDER_NOT_FOUND"]),
        (body("file"), ["KEY_HOLDER_IS_OURS"]),
    ):
        assert refusal(await keys.post("/customer/attach", wrong)) == (400, expected)
    for unusable in (Reason.AWAY, Reason.DENIED, Reason.THROTTLED, Reason.DISABLED):
        elsewhere.wrong = unusable
        refused = await keys.post("/customer/attach", body("hsm", elsewhere.add("new")))
        assert refusal(refused) == (503, ["KEY_UNAVAILABLE"])
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["errors"][0]["metadata"]["reason"] == unusable
    elsewhere.wrong = None
    assert refusal(await keys.post("/customer/attach", body())) == (503, ["KEY_UNAVAILABLE"])
    elsewhere.garbage = b"nonsense"
    refused = await keys.post("/customer/attach", body("hsm", elsewhere.add("new")))
    assert refused.json()["errors"][0]["metadata"]["reason"] == "NONSENSE"
    elsewhere.garbage = None
    assert await keys.states() == [(1, "ACTIVE", "kept")]
    reference = await attach(keys, elsewhere)
    stranger = await near.new_account()
    tenant = await stranger.new_tenant()
    theirs = Keys(near, tenant, tenant, tenant, f"/v1/tenant{PATH}")
    assert (await theirs.get("/holders")).json()["holders"] == []
    assert refusal(await theirs.post("/customer/attach", body("hsm", reference))) == (400, ["HOLDER_NOT_FOUND"])
    allowed.add(UUID(stranger.account_id))
    assert refusal(await theirs.post("/customer/attach", body("hsm", reference))) == (400, ["KEY_OF_ANOTHER_ACCOUNT"])


def wrap(public_key: str, key: bytes) -> str:
    public = load_pem_public_key(public_key.encode())
    assert isinstance(public, rsa.RSAPublicKey)
    oaep = padding.OAEP(mgf=padding.MGF1(SHA256()), algorithm=SHA256(), label=None)
    return base64.b64encode(public.encrypt(key, oaep)).decode()


async def test_a_key_is_imported(keys: Keys) -> None:
    begun = await keys.post("/imports")
    assert begun.status_code == 201
    offered = begun.json()
    assert offered["algorithms"] == ["RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256"]
    assert offered["_links"]["key"]["href"] == f"{keys.base}/imports/{offered['importToken']}"
    path = f"/imports/{offered['importToken']}"
    wrapped = wrap(offered["publicKey"], os.urandom(32))
    for wrong, expected in (
        ({}, ["ALGORITHM_IS_REQUIRED", "WRAPPED_KEY_IS_REQUIRED"]),
        ({"algorithm": "x", "wrappedKey": "%"}, ["ALGORITHM_NOT_RECOGNISED", "WRAPPED_KEY_IS_INVALID"]),
        ({"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": 1}, ["WRAPPED_KEY_IS_INVALID"]),
        ({"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": "A" * 2001}, ["WRAPPED_KEY_LENGTH_OUT_OF_RANGE"]),
        ({"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": "\u0001"}, ["WRAPPED_KEY_CONTAINS_INVALID_CHARACTERS"]),
        ({"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": wrapped[:400]}, ["WRAPPED_KEY_INVALID"]),
        ({"algorithm": "RSA_AES_KEY_WRAP_SHA_256", "wrappedKey": wrapped}, ["WRAPPED_KEY_INVALID"]),
    ):
        assert refusal(await keys.post(path, wrong)) == (400, expected)
    body = {"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": "\n".join(re.findall(".{1,64}", wrapped))}
    taken = await keys.post(path, body, headers={"Idempotency-Key": "brought"})
    assert taken.status_code == 202, taken.text
    assert (await keys.post(path, body, headers={"Idempotency-Key": "brought"})).json() == taken.json()
    await keys.finish()
    assert await keys.states() == [(1, "RETIRING", "kept"), (2, "ACTIVE", "imported")]
    assert refusal(await keys.post(path, body)) == (400, ["IMPORT_USED"])
    assert (await keys.get("/customer")).json()["reference"] is None


async def test_an_import_is_its_owners_and_for_a_day_and_five_attempts(keys: Keys, clock: ManualClock) -> None:
    first, second = [(await keys.post("/imports")).json() for _ in range(2)]
    junk = {"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": base64.b64encode(bytes(512)).decode()}
    stranger = await keys.platform.new_tenant()
    answer = await stranger.post(f"/v1/tenant{PATH}/imports/{first['importToken']}", junk)
    assert refusal(answer) == (400, ["IMPORT_NOT_FOUND"])
    assert refusal(await keys.post("/imports/none", junk)) == (400, ["IMPORT_NOT_FOUND"])
    for _ in range(5):
        assert codes(await keys.post(f"/imports/{first['importToken']}", junk)) == ["WRAPPED_KEY_INVALID"]
    # What is in the way of any other key costs no attempt.
    await keys.rotate("customer", "scope")
    assert codes(await keys.post("/imports")) == ["KEY_WORK_RUNNING"]
    assert codes(await keys.post(f"/imports/{first['importToken']}", junk)) == ["KEY_WORK_RUNNING"]
    await keys.finish()
    assert codes(await keys.post(f"/imports/{first['importToken']}", junk)) == ["IMPORT_ATTEMPTS_USED_UP"]
    clock.advance(timedelta(hours=24))
    await sign_in_at(clock, keys.client)
    assert codes(await keys.post(f"/imports/{second['importToken']}", junk)) == ["IMPORT_EXPIRED"]


async def test_a_disabled_key_is_unavailable_everywhere_and_comes_back(keys: Keys, far: Platform) -> None:
    instrument = await make_account(keys.tenant)
    here, there = keys.tenant, seen_by(far, keys.tenant)
    sibling = seen_by(far, await keys.platform.new_tenant())
    for client in (here, there, sibling):
        assert (await keys.iban(client)).status_code == 202
    disabled = await keys.post("/customer/disable")
    assert (disabled.status_code, disabled.json()["state"]) == (200, "DISABLED")
    for client in (there, here):
        refused = await until(503, lambda client=client: keys.iban(client))  # type: ignore[misc]  # mypy infers no lambda with a default
        assert (codes(refused), refused.headers["retry-after"]) == (["KEY_UNAVAILABLE"], "1")
        assert refused.json()["errors"][0]["metadata"]["reason"] == "DISABLED"
        # Everything else of the tenant goes on, and so does everybody else.
        masked = await client.get(f"/v1/customer-vault/c-1/financial-instrument/{instrument}")
        assert (masked.status_code, "DE89370400440532013000" in masked.text) == (200, False)
        assert (await client.post("/v1/order-management", {"orderRef": f"o-{client is here}"})).status_code == 201
    assert (await keys.iban(sibling)).status_code == 202
    for path, json in (("/rotations", {"layer": "customer", "key": "data"}), ("/imports", None)):
        assert refusal(await keys.post(path, json)) == (400, ["KEY_DISABLED"])
    assert refusal(await keys.post("/customer/test")) == (503, ["KEY_UNAVAILABLE"])
    assert (await keys.post("/customer/disable")).status_code == 200
    enabled = await keys.post("/customer/enable")
    assert (enabled.status_code, enabled.json()["state"]) == (200, "ACTIVE")
    for client in (there, here):
        await until(202, lambda client=client: keys.iban(client))  # type: ignore[misc]  # as above


async def test_a_key_disabled_by_its_holder_is_unavailable_everywhere(
    keys: Keys, far: Platform, elsewhere: Elsewhere
) -> None:
    await attach(keys, elsewhere)
    there = seen_by(far, keys.tenant)
    assert (await keys.iban(there)).status_code == 202
    elsewhere.wrong = Reason.DISABLED
    for client in (there, keys.tenant):
        refused = await until(503, lambda client=client: keys.iban(client))  # type: ignore[misc]  # as above
        assert refused.json()["errors"][0]["metadata"]["holder"] == "hsm"
    for path in ("test", "enable"):
        assert refusal(await keys.post(f"/customer/{path}")) == (503, ["KEY_UNAVAILABLE"])
    elsewhere.wrong = None
    for client in (there, keys.tenant):
        await until(202, lambda client=client: keys.iban(client))  # type: ignore[misc]  # as above


async def test_a_key_whose_holder_is_not_configured_any_more(
    keys: Keys, elsewhere: Elsewhere, allowed: set[UUID]
) -> None:
    await attach(keys, elsewhere)
    allowed.clear()
    for path in ("test", "enable"):
        assert refusal(await keys.post(f"/customer/{path}")) == (400, ["HOLDER_NOT_FOUND"])


async def test_destroying_takes_another_key_and_a_delay(keys: Keys, clock: ManualClock) -> None:
    assert (await keys.iban()).status_code == 202
    for path in ("approve", "cancel"):
        answer = await keys.post(f"/customer/destroy/{path}", {"version": 1})
        assert refusal(answer) == (400, ["KEY_DESTROY_NOT_ASKED"])
    for path in ("destroy", "destroy/approve"):
        for version, code in ((None, "VERSION_IS_REQUIRED"), ("1", "VERSION_IS_INVALID"), (2, "KEY_CHANGED")):
            answer = await keys.post(f"/customer/{path}", {"version": version})
            assert refusal(answer) == (400, [code])
    asked = await keys.post("/customer/destroy", {"version": 1})
    assert asked.status_code == 202
    assert asked.json()["destruction"] == {"askedBy": keys.client.public_key, "approvedBy": None, "after": None}
    assert refusal(await keys.post("/customer/destroy", {"version": 1})) == (400, ["KEY_BEING_DESTROYED"])
    assert refusal(await keys.rotate("customer", "scope")) == (400, ["KEY_BEING_DESTROYED"])
    itself = await keys.post("/customer/destroy/approve", {"version": 1})
    assert (itself.status_code, codes(itself)) == (403, ["KEY_DESTROY_NEEDS_ANOTHER"])
    approved = await keys.post("/customer/destroy/approve", {"version": 1}, by=keys.colleague)
    assert approved.status_code == 202
    destruction = approved.json()["destruction"]
    assert destruction["approvedBy"] == keys.colleague.public_key
    assert datetime.fromisoformat(destruction["after"]) == clock.now() + timedelta(days=7)
    cancelled = await keys.post("/customer/destroy/cancel", by=keys.colleague)
    assert (cancelled.status_code, cancelled.json()["destruction"]) == (200, None)

    await keys.post("/customer/destroy", {"version": 1})
    await keys.post("/customer/destroy/approve", {"version": 1}, by=keys.colleague)
    clock.advance(timedelta(days=7))
    await sign_in_at(clock, keys.client, keys.colleague, keys.tenant)
    assert refusal(await keys.post("/customer/destroy/cancel")) == (400, ["KEY_DESTROYED"])
    await keys.finish()
    assert await keys.states() == [(1, "DESTROYED", "kept")]
    assert refusal(await keys.iban()) == (503, ["KEY_UNAVAILABLE"])
    for path in ("disable", "enable"):
        assert refusal(await keys.post(f"/customer/{path}")) == (400, ["KEY_DESTROYED"])
    assert refusal(await keys.post("/customer/destroy", {"version": 1})) == (400, ["KEY_DESTROYED"])
    assert refusal(await keys.rotate("customer", "scope")) == (400, ["KEY_DESTROYED"])
    # A new key begins anew.
    offered = (await keys.post("/imports")).json()
    body = {"algorithm": "RSAES_OAEP_SHA_256", "wrappedKey": wrap(offered["publicKey"], os.urandom(32))}
    assert (await keys.post(f"/imports/{offered['importToken']}", body)).status_code == 202
    await keys.finish()
    assert (await keys.iban()).status_code == 202


async def test_who_may(keys: Keys) -> None:
    level = "tenant" if keys.client is keys.tenant else "account"
    reader = await keys.client.new_key(f"{level}-encryption-key-read")
    nobody = await keys.client.new_key("tenant-management" if level == "tenant" else "account-tenant-write")
    for path in ("", "/holders", "/rotations", "/customer"):
        assert (await keys.get(path, by=reader)).status_code == 200
        assert refusal(await keys.get(path, by=nobody)) == (403, ["FORBIDDEN"])
    assert (await keys.post("/customer/test", by=reader)).status_code == 200
    for path in ("/rotations", "/imports", *(f"/customer/{act}" for act in ("attach", "disable", "enable", "destroy"))):
        for client in (reader, nobody):
            assert refusal(await keys.post(path, {}, by=client)) == (403, ["FORBIDDEN"])
    assert (await keys.rotate("customer", "scope", by=keys.colleague)).status_code == 202


async def test_a_deleted_key_is_good_for_nothing(keys: Keys) -> None:
    """Not even for what needs no look into the database, or is refused anyway."""
    await keys.get(by=keys.colleague)
    base = f"/v1/{'tenant' if keys.client is keys.tenant else 'account'}/keys"
    assert (await keys.client.delete(f"{base}/{keys.colleague.public_key}")).status_code == 204
    for path in ("/holders", "/nobody", "/rotations/x"):
        answer = await keys.colleague.get(keys.base + path)
        assert refusal(answer) == (401, ["TOKEN_REVOKED"])
    for path in ("/rotations", "/imports/x", "/customer/attach", "/customer/destroy"):
        answer = await keys.colleague.post(keys.base + path, {})
        assert refusal(answer) == (401, ["TOKEN_REVOKED"])


async def test_another_accounts_tenant_is_not_there(keys: Keys) -> None:
    stranger = await keys.platform.new_account()
    path = f"/v1/tenant/{keys.tenant.tenant_id}{PATH}"
    for answer in (await stranger.get(path), await stranger.post(f"{path}/customer/disable")):
        assert refusal(answer) == (400, ["TENANT_NOT_FOUND"])
    assert refusal(await stranger.get(f"/v1/tenant/x{PATH}")) == (400, ["TENANT_NOT_FOUND"])
    assert await keys.states() == [(1, "ACTIVE", "kept")]


async def test_an_account_rotates_its_own_keys_which_have_no_customers_layer(near: Platform) -> None:
    account = await near.new_account()
    base = f"/v1/account{PATH}"
    body = (await account.get(base)).json()
    assert [(key["layer"], key["version"]) for key in body["scopeKeys"]] == [("platform", 1)]
    assert body["_links"] == {"self": {"href": base}}
    assert refusal(await account.post(f"{base}/rotations", {"layer": "customer", "key": "data"})) == (
        400, ["KEY_NOT_FOUND"],
    )  # fmt: skip
    scope = Scope(account=AccountId(UUID(account.account_id)))
    for key in ("data", "scope"):
        begun = await account.post(f"{base}/rotations", {"layer": "platform", "key": key})
        assert begun.status_code == 202
        await near.app.key_desk.tend(scope)
        assert (await account.get(begun.json()["_links"]["self"]["href"])).json()["status"] == "DONE"
    assert (await account.get("/v1/account/keys")).status_code == 200


async def test_what_is_done_to_keys_is_on_record(keys: Keys, elsewhere: Elsewhere) -> None:
    await attach(keys, elsewhere)
    await keys.post("/customer/test")
    await keys.post("/customer/disable")
    await keys.post("/customer/enable")
    await keys.post("/imports")
    await keys.post("/customer/destroy", {"version": 2})
    await keys.post("/customer/destroy/approve", {"version": 2}, by=keys.colleague)
    await keys.post("/customer/destroy/cancel")
    actions: Sequence[tuple[str, str, str]] = await World.of(keys.platform.app, keys.tenant).actions("key.")
    assert [action for action, *_ in actions] == [
        "key.attach", "key.rotated", "key.test", "key.disable", "key.enable", "key.begin-import",
        "key.ask-to-destroy", "key.approve-destroying", "key.cancel-destroying",
    ]  # fmt: skip

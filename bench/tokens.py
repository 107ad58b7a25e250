"""Tokens: how many are issued a second, by each credential, and how quickly they are checked."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from joserfc import jwt
from joserfc.jwk import ECKey

from bench.failure import BenchError
from strongroom.assembly import App, Installation
from strongroom.identity import Admission, Form, Rates, Target, TokenEndpoint, open_account, read_public_keys
from strongroom.identity.api_keys import register_key
from strongroom.identity.assertions import ASSERTION_TYPE
from strongroom.identity.hmac_signin import sign_in
from strongroom.kernel.actors import operator
from strongroom.kernel.config import Config, Environment
from strongroom.kernel.ids import AccountId, ApiKeyId, new_uuid
from strongroom.kernel.networks import NOWHERE

ISSUED = 400
"""Tokens of one turn, so many at a time:"""
WRITERS = 8
CHECKED = 5_000
"""Tokens checked in one turn; fewer than a process remembers."""
PROVEN = 400
ROUNDS = 3
_READ = Target(method="GET", path="/v1/account")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRates:
    """Tokens a second, in one process without HTTP: issued, and checked."""

    by_hmac: float
    by_assertion: float
    checked: float
    """Each seen for the first time."""
    remembered: float
    bound: float
    """With a proof, which is spent in the database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _World:
    """A process, with an account's two keys: one with a private half of ours, one with a key pair."""

    app: App
    account: AccountId
    hmac_key: ApiKeyId
    private_key: str
    pair_key: ApiKeyId
    pair: ECKey
    endpoint: TokenEndpoint
    admission: Admission


def measure(folder: Path) -> TokenRates:
    """Sign in and check tokens, on a new installation in `folder`.

    Raises:
        BenchError: a token isn't whose it should be.
        StrongroomError: a good credential was refused, or the database failed.
    """
    installation = Installation(Config(data_dir=folder, environment=Environment.SANDBOX))
    installation.start()
    try:
        return asyncio.run(_measure(installation))
    finally:
        installation.stop()


async def _measure(installation: Installation) -> TokenRates:
    app = installation.app(connections=WRITERS)
    try:
        await app.open()
        world = await _furnish(app)
        turns = [await _turn(world) for _ in range(ROUNDS)]
    finally:
        await app.close()
    hmac_s, assertion_s, checked_s, remembered_s, bound_s = (sum(times) for times in zip(*turns, strict=True))
    return TokenRates(
        by_hmac=ISSUED * ROUNDS / hmac_s,
        by_assertion=ISSUED * ROUNDS / assertion_s,
        checked=CHECKED * ROUNDS / checked_s,
        remembered=CHECKED * ROUNDS / remembered_s,
        bound=PROVEN * ROUNDS / bound_s,
    )


async def _furnish(app: App) -> _World:
    opened = await open_account(app.databases, app.keyring, operator(), company_name="Bench", region="eu")
    account, pair = opened.account.account_id, ECKey.generate_key("P-256")
    public = read_public_keys({"keys": [{**pair.as_dict(private=False), "kid": "bench"}]})
    async with app.operation(operator(), account=account) as op:
        made = await register_key(op, app.databases, name="Bench", roles=["account-admin"], public_keys=public)
    return _World(
        app=app,
        account=account,
        hmac_key=opened.key.public_key,
        private_key=opened.private_key.reveal(),
        pair_key=made.public_key,
        pair=pair,
        endpoint=TokenEndpoint(
            databases=app.databases,
            tokens=app.tokens,
            proofs=app.proofs,
            clock=app.clock,
            issuer=app.config.portal_origin,
        ),
        admission=Admission(databases=app.databases, tokens=app.tokens, proofs=app.proofs, rates=Rates(app.databases)),
    )


async def _turn(world: _World) -> tuple[float, float, float, float, float]:
    """The seconds that each kind of work took."""
    tokens = [_issue(world) for _ in range(CHECKED)]
    bound = _issue(world, world.pair.thumbprint())
    proofs = [_proof(world, bound) for _ in range(PROVEN)]
    world.app.tokens.read(tokens[0])
    return (
        await _all(ISSUED, lambda _: _by_hmac(world)),
        await _all(ISSUED, lambda _: _by_assertion(world)),
        await _check(world, tokens),
        await _check(world, [tokens[-1]] * CHECKED),
        await _all(PROVEN, lambda number: _admit(world, f"DPoP {bound}", proofs[number])),
    )


async def _all(count: int, act: Callable[[int], Awaitable[None]]) -> float:
    """The seconds that so many acts take, some at a time."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await act(number)

    started = time.perf_counter()
    await asyncio.gather(*(work() for _ in range(WRITERS)))
    return time.perf_counter() - started


async def _check(world: _World, tokens: Sequence[str]) -> float:
    started = time.perf_counter()
    for token in tokens:
        await _admit(world, f"Bearer {token}", "")
    return time.perf_counter() - started


async def _admit(world: _World, authorization: str, proof: str) -> None:
    actor = await world.admission.admit(authorization, proof, _READ, NOWHERE)
    if actor.account_id != world.account:
        raise BenchError("a token was taken for somebody else's")


async def _by_hmac(world: _World) -> None:
    text = f"{world.hmac_key}:{new_uuid()}:{world.app.clock.now().timestamp():.3f}:"
    signature = base64.b64encode(hmac.digest(base64.b64decode(world.private_key), text.encode(), "sha256")).decode()
    await sign_in(
        world.app.databases, world.app.tokens, authorization=f"Hmac {text[:-1]}:{signature}", body=b"",
        correlation_id="bench",
    )  # fmt: skip


async def _by_assertion(world: _World) -> None:
    key, now = str(world.pair_key), int(world.app.clock.now().timestamp())
    assertion = _sign(
        world,
        {"iss": key, "sub": key, "aud": world.endpoint.issuer, "jti": str(new_uuid()), "exp": now + 50},
        {"kid": "bench"},
    )
    parameters = {
        "grant_type": "client_credentials",
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": assertion,
    }
    await world.endpoint.grant(
        Form(
            parameters=parameters,
            authorization="",
            body=b"",
            proof="",
            target=Target(method="POST", path="/oauth/token"),
            correlation_id="bench",
            source=None,
        )
    )


def _issue(world: _World, proof_key: str | None = None) -> str:
    issued = world.app.tokens.issue(
        world.pair_key, account=world.account, tenant=None, roles=["account-admin"], proof_key=proof_key
    )
    return issued.token.reveal()


def _proof(world: _World, token: str) -> str:
    public = {name: value for name, value in world.pair.as_dict(private=False).items() if name != "kid"}
    digest = base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()
    claims = {
        "jti": str(new_uuid()),
        "htm": _READ.method,
        "htu": f"{world.endpoint.issuer}{_READ.path}",
        "iat": int(world.app.clock.now().timestamp()),
        "nonce": world.app.proofs.fresh_nonce(),
        "ath": digest,
    }
    return _sign(world, claims, {"typ": "dpop+jwt", "jwk": public})


def _sign(world: _World, claims: dict[str, Any], header: dict[str, Any]) -> str:
    return jwt.encode({"alg": "ES256", **header}, claims, world.pair, algorithms=["ES256"])

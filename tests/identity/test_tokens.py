"""Tokens without the API around them: what is remembered, for how long, and how much of it."""

from __future__ import annotations

import base64
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey

from strongroom.identity import SigningKeys, Tokens, load_or_make_tokens, signing_keys, tokens
from strongroom.kernel.actors import ActorKind
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Unauthenticated
from strongroom.kernel.ids import AccountId, ApiKeyId, TenantId
from strongroom.kernel.secret import Secret

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
KEY, ACCOUNT, TENANT = ApiKeyId(uuid.uuid4()), AccountId(uuid.uuid4()), TenantId(uuid.uuid4())


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def made(clock: ManualClock) -> Tokens:
    return Tokens(SigningKeys.fixed(Secret(os.urandom(32))), Environment.SANDBOX, clock)


def issue(made: Tokens, tenant: TenantId | None = TENANT) -> str:
    return made.issue(KEY, account=ACCOUNT, tenant=tenant, roles=["tenant-admin"]).token.reveal()


def test_a_token_tells_its_key_and_the_same_actor_every_time(made: Tokens) -> None:
    token = issue(made)
    access = made.read(token)
    actor = access.actor
    assert (actor.kind, actor.key_id, actor.account_id, actor.tenant_id) == (ActorKind.API_KEY, KEY, ACCOUNT, TENANT)
    assert actor.roles == {"tenant-admin"}
    assert made.read(token) is access
    assert made.read(issue(made, None)).actor.tenant_id is None


def test_two_tokens_of_one_moment_differ(made: Tokens) -> None:
    assert issue(made) != issue(made)


def test_a_remembered_token_still_ends(made: Tokens, clock: ManualClock) -> None:
    token = issue(made)
    made.read(token)
    clock.advance(signing_keys.LIFETIME)
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refused:
            made.read(token)
        assert refused.value.code == "TOKEN_EXPIRED"


def test_only_so_many_are_remembered(made: Tokens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_REMEMBERED", 3)
    issued = [issue(made) for _ in range(4)]
    first = [made.read(token) for token in issued]
    assert made.read(issued[3]) is first[3]
    assert made.read(issued[0]) is not first[0]
    assert made.read(issued[0]) == first[0]


def test_the_signing_key_is_kept_in_a_file_for_its_owner_alone(tmp_path: Path, clock: ManualClock) -> None:
    file = tmp_path / "keys" / "tokens.key"
    token = issue(load_or_make_tokens(file, Environment.SANDBOX, clock))
    assert file.stat().st_mode & 0o777 == 0o600
    assert load_or_make_tokens(file, Environment.SANDBOX, clock).read(token).actor.key_id == KEY
    file.chmod(0o640)
    with pytest.raises(Broken):
        load_or_make_tokens(file, Environment.SANDBOX, clock)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"iss": "somebody"}, "TOKEN_INVALID"),
        ({"aud": "somebody"}, "TOKEN_INVALID"),
        ({"env": "production"}, "TOKEN_OF_OTHER_ENVIRONMENT"),
        ({"sub": "x"}, "TOKEN_INVALID"),
        ({"account": None}, "TOKEN_INVALID"),
        ({"tenant": "x"}, "TOKEN_INVALID"),
        ({"tenant": None}, "TOKEN_INVALID"),
        ({"exp": "never"}, "TOKEN_INVALID"),
        ({"roles": "tenant-admin"}, "TOKEN_INVALID"),
        ({"jti": "x"}, "TOKEN_INVALID"),
        ({"scope": ["transactions:read"]}, "TOKEN_INVALID"),
        ({"cnf": "x"}, "TOKEN_INVALID"),
        ({"cnf": {"x5t#S256": "x"}}, "TOKEN_INVALID"),
    ],
)
def test_what_our_key_signed_for_another_end_is_no_access_token(
    clock: ManualClock, change: dict[str, object], code: str
) -> None:
    seed = os.urandom(32)
    made = Tokens(SigningKeys.fixed(Secret(seed)), Environment.SANDBOX, clock)
    public = made.key_set()["keys"][0]
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": public["x"], "d": jwt_base64(seed)})
    claims = {
        "iss": "strongroom",
        "aud": "strongroom-api",
        "env": "sandbox",
        "sub": str(KEY),
        "account": str(ACCOUNT),
        "tenant": str(TENANT),
        "roles": ["tenant-admin"],
        "jti": str(uuid.uuid4()),
        "exp": int((NOW + timedelta(minutes=1)).timestamp()),
    }
    header = {"alg": "Ed25519", "kid": public["kid"]}
    assert made.read(jwt.encode(header, claims, key, algorithms=["Ed25519"])).actor.key_id == KEY
    with pytest.raises(Unauthenticated) as refused:
        made.read(jwt.encode(header, {**claims, **change}, key, algorithms=["Ed25519"]))
    assert refused.value.code == code


def jwt_base64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()

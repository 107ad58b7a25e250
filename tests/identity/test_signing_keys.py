"""The keys that tokens are signed with: one signs, the one before stays good for a token's life (promise ACC-6)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from strongroom.identity import SigningKeys, Tokens, rotate_signing_key, signing_keys
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Broken, Conflict, Unauthenticated
from strongroom.kernel.ids import AccountId, ApiKeyId

KEY, ACCOUNT = ApiKeyId(uuid.uuid4()), AccountId(uuid.uuid4())


class Clockwork:
    """The time by which files are looked at again."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.now(UTC))


@pytest.fixture
def ticking(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clockwork]:
    clockwork = Clockwork()
    monkeypatch.setattr(signing_keys, "time", clockwork)
    yield clockwork


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.key"


def process(file: Path, clock: ManualClock) -> Tokens:
    return Tokens(SigningKeys.in_file(file), Environment.SANDBOX, clock)


def issue(made: Tokens) -> str:
    return made.issue(KEY, account=ACCOUNT, tenant=None, roles=["account-admin"]).token.reveal()


def published(made: Tokens) -> list[str]:
    return [key["kid"] for key in made.key_set()["keys"]]


def test_a_rotation_reaches_every_process_and_tokens_stay_good_to_their_end(
    file: Path, clock: ManualClock, ticking: Clockwork
) -> None:
    one, two = process(file, clock), process(file, clock)
    before = issue(one)
    old = published(one)
    new = rotate_signing_key(file, clock.now())
    fresh = process(file, clock)
    assert published(fresh) == [new, *old]
    # A process that hasn't looked yet knows what another signs with the new key, whatever the hour.
    assert two.read(issue(fresh)).actor.key_id == KEY
    ticking.now_s += signing_keys.LOOKED_AT_EVERY_S
    assert published(one) == [new, *old]
    for made in (one, two, fresh):
        assert made.read(before).actor.key_id == KEY
    clock.advance(signing_keys.LIFETIME - timedelta(seconds=1))
    assert one.read(before).actor.key_id == KEY
    clock.advance(signing_keys.NOTICED_WITHIN + timedelta(seconds=2))
    assert published(one) == [new]


def test_a_second_rotation_waits_until_no_token_of_the_first_key_is_left(file: Path, clock: ManualClock) -> None:
    process(file, clock)
    rotate_signing_key(file, clock.now())
    with pytest.raises(Conflict) as refused:
        rotate_signing_key(file, clock.now())
    assert refused.value.code == "TOKEN_KEY_ROTATED_LATELY"
    clock.advance(signing_keys.LIFETIME + signing_keys.NOTICED_WITHIN)
    assert published(process(file, clock))[0] != rotate_signing_key(file, clock.now())


def test_what_a_key_signed_that_may_be_known_to_others_is_refused_within_a_second(
    file: Path, clock: ManualClock, ticking: Clockwork
) -> None:
    running = process(file, clock)
    stolen, remembered = issue(running), issue(running)
    running.read(remembered)
    rotate_signing_key(file, clock.now())
    new = rotate_signing_key(file, clock.now(), at_once=True)
    ticking.now_s += signing_keys.LOOKED_AT_EVERY_S
    assert published(running) == [new]
    for token in (stolen, remembered):
        with pytest.raises(Unauthenticated) as refused:
            running.read(token)
        assert refused.value.code == "TOKEN_INVALID"


def test_both_files_are_their_owner_s_alone(file: Path, clock: ManualClock) -> None:
    process(file, clock)
    rotate_signing_key(file, clock.now())
    former = file.with_name("tokens.former.key")
    assert {path.stat().st_mode & 0o777 for path in file.parent.iterdir()} == {0o600}
    former.chmod(0o640)
    with pytest.raises(Broken):
        process(file, clock)

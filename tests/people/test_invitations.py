"""Invitations: the only way in, once, in time, and for whom they are."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from strongroom.database.databases import url_of
from strongroom.kernel.actors import operator
from strongroom.kernel.clock import ManualClock
from strongroom.kernel.errors import Unauthenticated
from strongroom.kernel.ids import AccountId, PersonId
from strongroom.kernel.secret import Secret
from strongroom.people.invitations import ANSWER_S, LIFETIME, look_up, resend
from tests.fixtures.platform import Client, Platform
from tests.people.browser import Browser, new_link, new_person, unique_address

REFUSED = "This link opens nothing"


def token_of(link: str) -> str:
    return link.rpartition("/")[2]


async def opens(platform: Platform, link: str) -> bool:
    """Whether a link shows an invitation; if it doesn't, it is refused in the one way there is."""
    answer = await Browser(platform=platform).open(link)
    assert answer.status_code == (200 if "Welcome" in answer.text else 401), answer.text
    assert ("Welcome" in answer.text) != (REFUSED in answer.text)
    return answer.status_code == 200


async def test_a_link_says_nothing_and_is_never_the_same(platform: Platform, account: Client) -> None:
    first = token_of(await new_link(platform, account, unique_address()))
    second = token_of(await new_link(platform, account, unique_address()))
    assert len(first) == len(second) == 123  # 12 bytes of nonce, 64 of content, 16 of tag
    assert not {first[i : i + 6] for i in range(118)} & {second[i : i + 6] for i in range(118)}


async def test_any_change_to_a_link_closes_it(platform: Platform, account: Client) -> None:
    link = await new_link(platform, account, unique_address())
    token = token_of(link)
    door = platform.app.front_door
    changed = [
        *(token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :] for at in range(0, len(token), 11)),
        token[:-1],
        token + "A",
        token[: len(token) // 2],
        "A" * len(token),
        "x",
        token.replace(token[5], "%", 1),
    ]
    for wrong in changed:
        with pytest.raises(Unauthenticated) as refused:
            await look_up(platform.app.databases, door.keys, Secret(wrong))
        assert refused.value.code == "INVITATION_INVALID", wrong
    assert await opens(platform, link)


async def test_a_link_is_good_for_72_hours(platform: Platform, account: Client) -> None:
    link = await new_link(platform, account, unique_address())
    clock = ManualClock(platform.app.clock.now() + LIFETIME - timedelta(seconds=5))
    assert timedelta(hours=72) == LIFETIME
    async with platform.another_process(clock) as later:
        assert await opens(later, link)
        clock.advance(timedelta(seconds=6))
        assert not await opens(later, link)


async def test_an_invitation_that_was_opened_in_time_can_not_be_accepted_too_late(
    platform: Platform, account: Client
) -> None:
    link = await new_link(platform, account, unique_address(), lifetime=timedelta(minutes=30))
    clock = ManualClock(platform.app.clock.now())
    async with platform.another_process(clock) as later:
        browser = Browser(platform=later)
        await browser.open(link)
        clock.advance(timedelta(minutes=31))
        answer = await browser.submit("/portal/invitation", name="Ada", password="x" * 20, code="000000")
    assert (answer.status_code, REFUSED in answer.text) == (401, True)


async def test_looking_uses_nothing_up_and_accepting_does(platform: Platform, account: Client) -> None:
    link = await new_link(platform, account, unique_address())
    for _ in range(2):
        assert await opens(platform, link)
    assert (await Browser(platform=platform).accept(link)).status_code == 200
    assert not await opens(platform, link)


async def test_of_several_at_once_one_comes_in(platform: Platform, account: Client) -> None:
    address = unique_address()
    link = await new_link(platform, account, address)
    browsers = [Browser(platform=platform) for _ in range(4)]
    answers = await asyncio.gather(*(browser.accept(link) for browser in browsers))
    assert sorted(answer.status_code for answer in answers) == [200, 401, 401, 401]
    users = (await account.get("/v1/account/users")).json()["results"]
    assert [user["emailAddress"] for user in users] == [address]


async def test_a_link_sent_again_ends_the_one_before(platform: Platform, account: Client) -> None:
    made = await account.post("/v1/account/users", {"emailAddress": unique_address(), "roles": ["account-admin"]})
    door = platform.app.front_door
    user = made.json()["userId"]
    async with platform.app.operation(operator(), account=AccountId(UUID(account.account_id))) as op:
        _, first = await resend(op, door.keys, PersonId(UUID(user)), None)
        _, second = await resend(op, door.keys, PersonId(UUID(user)), None)
    assert not await opens(platform, door.invitation_link(first).reveal())
    assert await opens(platform, door.invitation_link(second).reveal())


async def test_a_withdrawn_link_opens_nothing(platform: Platform, account: Client) -> None:
    address = unique_address()
    link = await new_link(platform, account, address)
    (user,) = (await account.get("/v1/account/users")).json()["results"]
    assert (await account.delete(f"/v1/account/users/{user['userId']}")).status_code == 204
    assert not await opens(platform, link)
    # The address can be invited again.
    assert await opens(platform, await new_link(platform, account, address))


@pytest.mark.parametrize(
    "change",
    [
        "roles = array['account-admin', 'account-tenant-read']",
        "expires_at = expires_at + interval '1 day'",
        "for_tenant = gen_random_uuid()",
        "person_id = gen_random_uuid()",
        "binding = sha256('x')",
    ],
)
async def test_a_row_that_says_something_else_is_no_invitation(
    platform: Platform, account: Client, change: str
) -> None:
    link = await new_link(platform, account, unique_address())
    with psycopg.connect(url_of(platform.app.installation.admin_url, "eu").reveal()) as connection:
        statement = f"update invitations set {change} where account_id = %s"  # noqa: S608  texts above
        connection.execute(statement.encode(), (account.account_id,))
    assert not await opens(platform, link)


async def test_an_invitation_of_another_row_does_not_open(platform: Platform, account: Client) -> None:
    """The sealed address of one invitation put into another one's row."""
    link = await new_link(platform, account, unique_address())
    await new_link(platform, account, unique_address())
    with psycopg.connect(url_of(platform.app.installation.admin_url, "eu").reveal()) as connection:
        connection.execute(
            "update invitations i set sealed = o.sealed from invitations o "
            "where i.account_id = %s and o.account_id = i.account_id and o.invitation_id <> i.invitation_id",
            (account.account_id,),
        )
    answer = await Browser(platform=platform).open(link)
    assert answer.status_code == 500


async def test_nobody_is_made_without_an_accepted_invitation(platform: Platform, account: Client) -> None:
    await new_link(platform, account, unique_address())
    insert = (
        "insert into persons (account_id, person_id, invitation_id, state, address_hash, sealed, created_at, "
        "updated_at) select account_id, person_id, invitation_id, 'ACTIVE', address_hash, sealed, now(), now() "
        "from invitations where account_id = %s"
    )
    with psycopg.connect(url_of(platform.app.installation.admin_url, "eu").reveal()) as connection:
        with pytest.raises(psycopg.errors.ForeignKeyViolation, match="accepted invitation"):
            connection.execute(insert.encode(), (account.account_id,))
        connection.rollback()
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(
                insert.replace("select account_id, person_id", "select account_id, gen_random_uuid()").encode(),
                (account.account_id,),
            )


async def test_a_wrong_link_takes_as_long_as_a_right_one(platform: Platform, account: Client) -> None:
    right = token_of(await new_link(platform, account, unique_address()))
    wrong = right[:-3] + ("AAA" if right[-3:] != "AAA" else "BBB")
    times: dict[str, list[float]] = {right: [], wrong: []}
    door = platform.app.front_door
    for _ in range(7):
        for token, took in times.items():
            began = time.monotonic()
            try:
                await look_up(platform.app.databases, door.keys, Secret(token))
            except Unauthenticated:
                assert token == wrong
            took.append(time.monotonic() - began)
    quickest = [min(took) for took in times.values()]
    assert min(quickest) >= ANSWER_S
    assert abs(quickest[0] - quickest[1]) < 0.02


async def test_the_address_of_the_page_does_not_hold_the_token(platform: Platform, account: Client) -> None:
    link = await new_link(platform, account, unique_address())
    browser = Browser(platform=platform)
    first = await browser.send("GET", f"/portal/invitation/{token_of(link)}")
    assert (first.status_code, first.headers["location"]) == (303, "/portal/invitation")
    assert first.headers["referrer-policy"] == "no-referrer"
    shown = await browser.open("/portal/invitation")
    assert token_of(link) not in shown.text
    accepted = await browser.accept(link)
    assert "__Host-invitation" not in browser.cookies
    assert token_of(link) not in accepted.text


async def test_what_is_wrong_with_an_answer_is_said_and_nothing_is_lost(platform: Platform, account: Client) -> None:
    address = unique_address("ada.beispiel")
    browser = Browser(platform=platform)
    link = await new_link(platform, account, address)
    for name, password, said in (
        ("", "vier Esel tragen Heu", "Say what you are called"),
        ("A" * 101, "vier Esel tragen Heu", "at most 100 characters"),
        ("Ada Beispiel", "kurz", "8 to 256 characters"),
        ("Ada Beispiel", "Password1!", "among the first"),
        ("Ada Beispiel", "Beispiel-2026", "made of your own name"),
    ):
        answer = await browser.accept(link, name=name, password=password)
        assert (answer.status_code, said in answer.text) == (400, True), (password, answer.text)
        assert password not in answer.text or not password
    await browser.open(link)
    answer = await browser.submit("/portal/invitation", name="Ada", password="vier Esel tragen Heu", code="000000")
    assert (answer.status_code, "what the authenticator shows now" in answer.text) == (401, True)
    assert (await browser.accept(link)).status_code == 200


async def test_a_secret_shown_for_another_link_is_not_taken(platform: Platform, account: Client) -> None:
    """Else somebody could be made to take an authenticator's secret that another one knows."""
    mine, theirs = Browser(platform=platform), Browser(platform=platform)
    await mine.open(await new_link(platform, account, unique_address()))
    await theirs.open(await new_link(platform, account, unique_address()))
    setup = theirs.hidden("/portal/invitation")["setup"]
    answer = await mine.submit("/portal/invitation", setup=setup, name="Ada", password="x" * 20, code="123456")
    assert "Welcome" in answer.text
    assert mine.hidden("/portal/invitation")["setup"] != setup


async def test_roles_of_the_invitation_and_no_others_are_granted(platform: Platform, account: Client) -> None:
    await new_person(platform, account, unique_address(), "account-tenant-read", "account-tenant-approval")
    (user,) = (await account.get("/v1/account/users")).json()["results"]
    assert user["roles"] == ["account-tenant-approval", "account-tenant-read"]
    assert (user["invitationStatus"], user["expiryDate"]) == ("ACCEPTED", None)

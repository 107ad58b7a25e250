"""ACC-2 turns red for every answer of a provider that signs somebody in and shouldn't."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from strongroom.people.keys import decode
from strongroom.people.single_sign_on import flow, oidc, saml
from strongroom.trust import Workbench
from strongroom.trust.checks.single_sign_on import check_single_sign_on


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_single_sign_on(bench)
    assert figure.breaches == ()
    assert "10 bad answers refused" in figure.text and "7 bad ones refused" in figure.text


async def nothing(*_: Any, **__: Any) -> None:
    """A check that isn't made."""


async def test_a_replayed_assertion_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "_spend", nothing)
    monkeypatch.setattr(flow, "_keep_answer", _keep_for_whoever_comes)
    figure = await check_single_sign_on(bench)
    assert "a replayed assertion signs somebody in" in figure.breaches


async def _keep_for_whoever_comes(op: Any, request_id: Any, version_id: Any, claims: Any) -> None:
    """Answers any request that is under way, whichever was asked."""
    row = await op.row("select request_id from sign_in_requests where answered_at is null order by request_id desc")
    answered = flow.UnderWay(purpose=flow.Purpose.SIGN_IN, version_id=version_id, claims=claims)
    await op.run(
        "update sign_in_requests set request_id = %s, sealed = %s, answered_at = %s where request_id = %s",
        request_id,
        flow._seal(op, request_id, answered),
        op.now,
        row[0],
    )


async def test_another_audience_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml.Client, "_check_conditions", lambda *_: datetime.now(UTC))
    figure = await check_single_sign_on(bench)
    assert figure.breaches == ("an assertion for another audience signs somebody in",)


async def test_another_place_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml.Client, "_check_subject", lambda *_: datetime.now(UTC))
    figure = await check_single_sign_on(bench)
    assert "an assertion for another place signs somebody in" in figure.breaches


async def test_an_unverified_signature_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml, "read_signed", lambda element, _: element)
    figure = await check_single_sign_on(bench)
    assert set(figure.breaches) == {
        "an assertion of another key signs somebody in",
        "an altered assertion signs somebody in",
    }


async def test_an_unsigned_assertion_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saml, "is_signed", lambda _: True)
    monkeypatch.setattr(saml, "read_signed", lambda element, _: element)
    figure = await check_single_sign_on(bench)
    assert "an unsigned assertion signs somebody in" in figure.breaches


async def test_a_person_of_another_domain_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def any_domain(op: Any, _: str) -> Any:
        return (await op.row("select domain_id from email_domains limit 1"))[0]

    monkeypatch.setattr("strongroom.people.single_sign_on.admitting.find_verified", any_domain)
    figure = await check_single_sign_on(bench)
    assert figure.breaches == ("an assertion about another domain signs somebody in",)


async def test_an_id_token_that_is_not_looked_at_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oidc.Client, "_check_token", lambda *_: None)
    figure = await check_single_sign_on(bench)
    assert set(figure.breaches) == {
        "an ID token for somebody else is taken",
        "an ID token of another issuer is taken",
        "an expired ID token is taken",
    }


async def test_an_id_token_under_a_shared_secret_is_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def any_token(_: object, __: object, token: str, **___: object) -> Any:
        return msgspec.json.decode(decode(token.split(".")[1]) or b"")

    monkeypatch.setattr(oidc.Client, "_read_token", any_token)
    figure = await check_single_sign_on(bench)
    assert set(figure.breaches) == {
        "an unsigned ID token is taken",
        "an ID token of another key is taken",
        "an ID token under the client's secret is taken",
    }

"""The public page of the promises."""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

from strongroom.api.trust import BROKEN, public_figure, render
from strongroom.trust import PROMISES, Colour, Verdict
from tests.fixtures.platform import Platform

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SECRET = "orders does not force row-level security <script>"


def verdicts() -> list[Verdict]:
    """ENC-1 proven, ENC-2 broken, everything else unbuilt."""
    checked = {"ENC-1": (Colour.GREEN, "0 of 9 weak & old"), "ENC-2": (Colour.RED, SECRET)}
    return [
        Verdict(
            id=promise.id,
            promise=promise.sentence,
            colour=checked.get(promise.id, (Colour.UNBUILT, ""))[0],
            figure=checked.get(promise.id, (Colour.UNBUILT, "Nothing."))[1],
            checked_at=NOW - timedelta(minutes=7) if promise.id in checked else None,
        )
        for promise in PROMISES
    ]


class Page(HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.items: list[str] = []
        self.addresses: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "action", "style"} and value]
        if tag == "li" and given.get("id"):
            self.items.append(f"{given['id']} {given['class']}")


async def test_the_page_is_for_everybody_and_runs_nothing(platform: Platform) -> None:
    answer = await platform.http.get("/trust")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "set-cookie" not in answer.headers
    page = Page(answer.text)
    assert not {"script", "img", "link", "iframe", "form"} & set(page.tags)
    assert page.addresses == ["/trust.json"]
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    style = re.search(r"<style>(.*)</style>", answer.text, re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == {
        "default-src": "'none'",
        "style-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }


async def test_the_data_is_the_same(platform: Platform) -> None:
    answer = await platform.http.get("/trust.json")
    assert answer.status_code == 200
    body = answer.json()
    assert [entry["id"] for entry in body] == [promise.id for promise in PROMISES]
    assert {tuple(entry) for entry in body} == {("id", "promise", "verdict", "figure", "checked_at")}
    page = Page((await platform.http.get("/trust")).text)
    assert page.items == [f"{entry['id']} {entry['verdict']}" for entry in body]


def test_each_promise_has_its_verdict_figure_and_age() -> None:
    text = render(verdicts(), NOW, "sandbox")
    assert [item for item in Page(text).items if not item.endswith(" unbuilt")] == ["ENC-1 green", "ENC-2 red"]
    assert "<b>1</b> proven" in text
    assert "<b>1</b> broken" in text
    assert "<b>48</b> unbuilt" in text
    assert "0 of 9 weak &amp; old" in text
    assert text.count("checked 7 min ago") == 2
    assert "1 of 6 proven" in text


def test_how_a_promise_is_broken_is_not_for_everybody() -> None:
    text = render(verdicts(), NOW, "sandbox")
    assert "row-level" not in text
    assert BROKEN in text
    assert [public_figure(verdict) for verdict in verdicts()[7:10]] == ["0 of 9 weak & old", BROKEN, "Nothing."]

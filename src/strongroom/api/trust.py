"""The public page of the promises: how each stands, with the figure and the age of its last check.

Made on the server, without scripts, cookies or anything from elsewhere. What is broken is said to be broken; how is
between the operator and `strongroom prove`, since a page for everybody is no place for it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from datetime import datetime
from html import escape
from typing import Final

import msgspec

from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.trust import CHECKS, PROMISES, Colour, Group, Promise, Verdict, describe_age, last_verdicts

BROKEN: Final = "Found broken by the last check. The operator of this installation has the details."
_SAID: Final = {Colour.GREEN: "proven", Colour.RED: "broken", Colour.UNBUILT: "unbuilt"}
_STANDARDS: Final = (("PCI DSS", "pci"), ("ISO 27001 A.", "iso"), ("GDPR art.", "gdpr"), ("ASVS", "asvs"))


class VerdictBody(msgspec.Struct):
    """How a promise stands; `checked_at` is null where no check has run."""

    id: str
    promise: str
    verdict: str
    figure: str
    checked_at: str | None


async def _page(call: Call) -> Reply:
    verdicts = await last_verdicts(call.services.databases, CHECKS)
    content = render(verdicts, call.services.clock.now(), call.services.config.environment.value)
    return Reply(200, content=content.encode(), media=b"text/html; charset=utf-8", headers=_HEADERS)


async def _data(call: Call) -> Reply:
    verdicts = await last_verdicts(call.services.databases, CHECKS)
    return Reply(200, [_body(verdict) for verdict in verdicts])


def public_figure(verdict: Verdict) -> str:
    """The figure as everybody may read it."""
    return BROKEN if verdict.colour is Colour.RED else verdict.figure


def render(verdicts: Sequence[Verdict], now: datetime, environment: str) -> str:
    """The page."""
    promises = {promise.id: promise for promise in PROMISES}
    groups = "".join(
        _group(group, [verdict for verdict in verdicts if promises[verdict.id].group is group], now) for group in Group
    )
    counts = {colour: sum(verdict.colour is colour for verdict in verdicts) for colour in Colour}
    tally = "".join(
        f'<li class="{colour.value}"><b>{count}</b> {_SAID[colour]}</li>' for colour, count in counts.items()
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Trust · strongroom</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<p class="brand">strongroom <span>{escape(environment)}</span></p>
<h1>{len(verdicts)} promises, and what has been proven of them here</h1>
<p>Green means that a check exercised this running system and found the promise kept. Nothing is green because somebody
says so: what no check shows yet is listed as unbuilt.</p>
<ul class="tally">{tally}</ul>
</header>
<main>
{groups}</main>
<footer>The same as data: <a href="/trust.json">trust.json</a>. Times are UTC; this page was made
<time datetime="{now.isoformat(timespec="seconds")}">{now:%Y-%m-%d %H:%M:%S}</time>.</footer>
</body>
</html>
"""


def _body(verdict: Verdict) -> VerdictBody:
    return msgspec.convert({**verdict.as_data(), "figure": public_figure(verdict)}, VerdictBody)


def _group(group: Group, verdicts: Sequence[Verdict], now: datetime) -> str:
    promises = {promise.id: promise for promise in PROMISES}
    proven = sum(verdict.colour is Colour.GREEN for verdict in verdicts)
    rows = "".join(_row(promises[verdict.id], verdict, now) for verdict in verdicts)
    return f"""<section>
<h2>{escape(group.value)} <span>{proven} of {len(verdicts)} proven</span></h2>
<ol>
{rows}</ol>
</section>
"""


def _row(promise: Promise, verdict: Verdict, now: datetime) -> str:
    age = verdict.age(now)
    when = ""
    if age is not None and verdict.checked_at is not None:
        stamp = verdict.checked_at.isoformat(timespec="seconds")
        when = f' <time datetime="{stamp}" title="{stamp}">checked {describe_age(age)} ago</time>'
    figure = (
        ""
        if age is None and promise.id not in CHECKS
        else f'<p class="figure">{escape(public_figure(verdict))}{when}</p>\n'
    )
    said = f"<strong>{_SAID[verdict.colour]}</strong>"
    return f"""<li class="{verdict.colour.value}" id="{promise.id}">
<p class="promise"><code>{promise.id}</code> <span>{escape(promise.sentence)}</span> {said}</p>
{figure}<p class="standards">{_standards(promise)}</p>
</li>
"""


def _standards(promise: Promise) -> str:
    named = ((label, getattr(promise.references, field)) for label, field in _STANDARDS)
    return " · ".join(f"{label}&nbsp;{escape(', '.join(ids))}" for label, ids in named if ids)


STYLE: Final = """
:root{--ground:#fbfaf7;--card:#fff;--ink:#1c1f24;--soft:#5d6570;--line:#e4e1d9;--green:#14703f;--green-soft:#e2f3e8;
--red:#b3261e;--red-soft:#fbe6e3;--grey:#626a75;--grey-soft:#eeece6}
@media (prefers-color-scheme:dark){:root{--ground:#14171b;--card:#1b1f25;--ink:#e9e7e1;--soft:#a2aab4;--line:#2d333b;
--green:#6fd49b;--green-soft:#16352a;--red:#ff9a8f;--red-soft:#43201d;--grey:#a2aab4;--grey-soft:#272c33}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:56rem;padding:2.5rem 1.25rem 3rem;background:var(--ground);color:var(--ink);
font:1rem/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;overflow-wrap:anywhere}
p,h1,h2,ol,ul{margin:0;padding:0}
ol,ul{list-style:none}
header{border-bottom:1px solid var(--line);padding-bottom:1.75rem}
header>p{max-width:42rem;color:var(--soft)}
.brand{font-weight:650;letter-spacing:-.01em;color:var(--ink)}
.brand span{margin-left:.4rem;padding:.1rem .5rem;border:1px solid var(--line);border-radius:1rem;color:var(--soft);
font-size:.8rem;font-weight:500}
h1{margin:1.5rem 0 .6rem;font-size:clamp(1.5rem,1.1rem + 2vw,2.1rem);line-height:1.2;letter-spacing:-.02em;
text-wrap:balance}
.tally{display:flex;flex-wrap:wrap;gap:.6rem;margin-top:1.25rem}
.tally li{padding:.35rem .85rem;border-radius:2rem;font-size:.95rem}
.tally b{font-size:1.05rem;font-variant-numeric:tabular-nums}
.green strong,.tally .green{color:var(--green);background:var(--green-soft)}
.red strong,.tally .red{color:var(--red);background:var(--red-soft)}
.unbuilt strong,.tally .unbuilt{color:var(--grey);background:var(--grey-soft)}
section{margin-top:2.25rem}
h2{display:flex;justify-content:space-between;align-items:baseline;gap:1rem;margin-bottom:.6rem;font-size:1.1rem}
h2 span{color:var(--soft);font-size:.85rem;font-weight:400;white-space:nowrap}
section ol{background:var(--card);border:1px solid var(--line);border-radius:.75rem}
section li{padding:.85rem 1.1rem}
section li+li{border-top:1px solid var(--line)}
.promise{display:grid;grid-template-columns:4rem 1fr auto;gap:.25rem .75rem;align-items:baseline}
code{font:600 .82rem/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;color:var(--soft)}
strong{padding:.08rem .6rem;border-radius:1rem;font-size:.8rem;font-weight:600;white-space:nowrap}
.figure,.standards{margin:.3rem 0 0 4.75rem;font-size:.9rem}
.standards{color:var(--soft);font-size:.78rem}
.standards:empty{display:none}
time{color:var(--soft);white-space:nowrap}
.figure time{display:block;font-size:.85rem}
footer{margin-top:2.5rem;color:var(--soft);font-size:.85rem}
a{color:inherit;text-underline-offset:.15em}
:target{outline:2px solid var(--green);outline-offset:-2px;border-radius:.75rem}
@media (max-width:34rem){body{padding:1.5rem 1rem 2rem}.promise{grid-template-columns:1fr auto}
.promise span{grid-row:2;grid-column:1/-1}.figure,.standards{margin-left:0}}
"""
_DIGEST: Final = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
_HEADERS: Final = (
    (
        b"content-security-policy",
        f"default-src 'none'; style-src 'sha256-{_DIGEST}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'".encode(),
    ),
    (b"referrer-policy", b"no-referrer"),
)

ROUTES: Final[Sequence[Route]] = (
    Route(
        method="GET",
        path="/trust",
        summary="The promises, and how each stands (a page)",
        tag="Installation",
        access=Access.PUBLIC,
        call=_page,
        replies={200: bytes},
        reply_media="text/html",
    ),
    Route(
        method="GET",
        path="/trust.json",
        summary="The promises, and how each stands (data)",
        tag="Installation",
        access=Access.PUBLIC,
        call=_data,
        replies={200: list[VerdictBody]},
    ),
)

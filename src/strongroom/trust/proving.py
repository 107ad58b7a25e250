"""Running the checks: one after another, each with its own end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

import structlog

from strongroom.kernel.errors import Failure, Invalid
from strongroom.trust import evidence
from strongroom.trust.controls import CHECKS, Check
from strongroom.trust.promises import PROMISES, Promise
from strongroom.trust.verdicts import CannotTell, Colour, Verdict
from strongroom.trust.workbench import Workbench

log = structlog.get_logger(__name__)

CHECK_TIMEOUT_S: Final = 900
"""A check that takes longer has failed."""
MAX_FIGURE: Final = 1_000

Report = Callable[[Promise, Verdict | None], None]
"""Told when a check begins (None) and how it ended."""


async def prove(
    bench: Workbench,
    only: Collection[str] = (),
    *,
    checks: Mapping[str, Check] = CHECKS,
    report: Report = lambda promise, verdict: None,
) -> Sequence[Verdict]:
    """Check the promises (all, or those named), keep the evidence, and say how each stands.

    Raises errors.Invalid (`PROMISE_NOT_RECOGNISED`) for an id that isn't on the list.
    """
    chosen = _choose(only)
    verdicts = []
    for promise in chosen:
        check = checks.get(promise.id)
        if check is None:
            verdicts.append(_verdict(bench, promise, Colour.UNBUILT, evidence.NOT_BUILT))
            continue
        report(promise, None)
        verdict = await _run(bench, promise, check)
        await evidence.keep(bench.databases, [verdict])
        report(promise, verdict)
        verdicts.append(verdict)
    return verdicts


async def _run(bench: Workbench, promise: Promise, check: Check) -> Verdict:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            figure = await check(bench)
    except CannotTell as reason:
        return _verdict(bench, promise, Colour.UNBUILT, str(reason))
    except Exception as error:
        # A check that can't finish has shown nothing; a promise that isn't shown counts as broken.
        log.warning("trust.check_failed", control=promise.id, error=type(error).__name__, exc_info=True)
        return _verdict(bench, promise, Colour.RED, f"The check could not finish: {str(error) or type(error).__name__}")
    return _verdict(bench, promise, Colour.GREEN if figure.is_green else Colour.RED, figure.text)


def _verdict(bench: Workbench, promise: Promise, colour: Colour, figure: str) -> Verdict:
    return Verdict(
        id=promise.id,
        promise=promise.sentence,
        colour=colour,
        figure=figure[:MAX_FIGURE],
        checked_at=None if colour is Colour.UNBUILT else bench.clock.now(),
    )


def _choose(only: Collection[str]) -> Sequence[Promise]:
    wanted = {name.strip().upper() for name in only}
    unknown = sorted(wanted - {promise.id for promise in PROMISES})
    if unknown:
        raise Invalid(
            Failure(
                "PROMISE_NOT_RECOGNISED",
                "There is no promise {unknown}. The list runs from {first} to {last}; see docs/trust.md.",
                {"unknown": ", ".join(unknown), "first": PROMISES[0].id, "last": PROMISES[-1].id},
            )
        )
    return [promise for promise in PROMISES if not wanted or promise.id in wanted]

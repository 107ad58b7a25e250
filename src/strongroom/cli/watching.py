"""Watching payments being carried out, and playing the bank that answers them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from strongroom.assembly import App
from strongroom.kernel.actors import operator
from strongroom.kernel.errors import Unavailable
from strongroom.kernel.ids import TenantId
from strongroom.payments.dispatch import LEAD
from strongroom.payments.standing import count_attempts, count_due
from strongroom.rails.bank.simulator import Behaviour, answer_outbox
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER, SIMULATOR

PATIENCE_S: Final = 45.0
"""How long nothing may change before the waiting ends: longer than any pause between two enquiries."""
AT_REST_S: Final = 1.5
"""How long everything has to be at its end before it counts."""
_LOOK_EVERY_S: Final = 0.25
_RAILS: Final = ((SIMULATOR, "Provider simulator"), (SEPA_CREDIT_TRANSFER, "SEPA by file"))
_MOVING: Final = frozenset({"INTENDED", "UNCONFIRMED", "PROCESSING"})

State = tuple[Mapping[tuple[str, str], int], int, int]
"""Attempts by app and state; how many instructions are due and not begun; how many of the bank's files lie unread."""


class Watch:
    """Shows how far a tenant's payments are, and answers its payment files, until nothing more happens.

    `with_break`: with its first answer the bank also books a payment that is none of ours.
    """

    def __init__(self, app: App, tenant: TenantId, progress: Progress, *, with_break: bool) -> None:
        self.is_all_sent = False
        self._app = app
        self._tenant = tenant
        self._progress = progress
        self._with_break = with_break
        self._tasks: dict[str, TaskID] = {}
        self._outbox = app.config.files_dir / "outbox" / str(tenant)
        self._inbox = app.config.files_dir / "inbox" / str(tenant)

    async def run(self) -> None:
        """Return when all is sent, and what is due came to an end or didn't move for `PATIENCE_S`."""
        seen: State | None = None
        changed_at = time.monotonic()
        while True:
            answered = await asyncio.to_thread(self._answer)
            try:
                state: State | None = await self._look()
            except Unavailable:
                # The database is away for a moment; the platform waits for it too.
                state = seen
            if answered or state != seen:
                seen, changed_at = state, time.monotonic()
            still_for_s = time.monotonic() - changed_at
            if self.is_all_sent and still_for_s >= (AT_REST_S if _is_at_rest(state) else PATIENCE_S):
                return
            await asyncio.sleep(_LOOK_EVERY_S)

    def _answer(self) -> int:
        """The bank reads what is new in the outbox, and drops its answers into the inbox."""
        dropped = answer_outbox(
            self._outbox,
            self._inbox,
            books_dir=self._app.config.data_dir / "bank",
            at=self._app.clock.now(),
            behaviour=Behaviour(unrelated_incoming=self._with_break),
        )
        self._with_break = self._with_break and not dropped
        return len(dropped)

    async def _look(self) -> State:
        async with self._app.operation(operator(), tenant=self._tenant) as op:
            attempts = await count_attempts(op)
            due = await count_due(op, op.today + LEAD)
        for app_id, title in _RAILS:
            self._show(app_id, title, attempts)
        return attempts, due, len([*self._inbox.glob("*.xml"), *self._inbox.glob("taken/*.xml")])

    def _show(self, app_id: str, title: str, attempts: Mapping[tuple[str, str], int]) -> None:
        states = {state: count for (name, state), count in attempts.items() if name == app_id}
        if not states:
            return
        if app_id not in self._tasks:
            self._tasks[app_id] = self._progress.add_task(title, total=None, says="")
        paid, failed = states.get("SUCCESS", 0), states.get("FAILED", 0)
        said = [f"{paid:,} paid", f"{failed:,} attempts failed"]
        said += [f"{states[state]:,} {state.lower()}" for state in ("UNCONFIRMED", "PROCESSING") if states.get(state)]
        self._progress.update(
            self._tasks[app_id], total=sum(states.values()), completed=paid + failed, says=" · ".join(said)
        )


def progress_on(console: Console) -> Progress:
    """A progress display whose tasks have a field `says`."""
    return Progress(
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description:<20}"),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[says]}"),
        TimeElapsedColumn(),
        console=console,
    )


def _is_at_rest(state: State | None) -> bool:
    """Whether nothing is to be expected any more: a payment about which a bank says nothing stays as it is."""
    if state is None:
        return False
    attempts, due, unread = state
    moving = sum(
        count
        for (app_id, status), count in attempts.items()
        if status in _MOVING and (app_id, status) != (SEPA_CREDIT_TRANSFER, "PROCESSING")
    )
    return not (moving or due or unread)

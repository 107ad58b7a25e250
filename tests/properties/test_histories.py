"""Random histories of instructions, held against a model of the money after every step."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from strongroom.kernel.clock import ManualClock, SystemClock
from strongroom.kernel.errors import Conflict
from strongroom.kernel.money import Money
from strongroom.kernel.secret import Secret
from strongroom.outbound import Destination, Outbound
from strongroom.payments.dispatch import Dispatcher
from strongroom.payments.instructions import Change, cancel_instruction, change_instruction
from strongroom.payments.notifications import NotificationReceiver
from strongroom.rails.connectors.simulator import Simulator
from strongroom.rails.contract import Provider
from strongroom.rails.simulator.callbacks import signed_headers, signing_key
from tests.certificates import Authority
from tests.fixtures.platform import Platform
from tests.payments.paying import Payer, Rail
from tests.properties.model import WORDS, Model
from tests.rails.simulator.process import PATIENT, SECRET, SimulatorProcess, free_port

words = st.sampled_from(WORDS)
money = st.tuples(st.sampled_from(["EUR", "CHF", "JPY"]), st.integers(1, 10**9))
some = st.integers(0, 11)
"""One of the instructions that there are."""
steps = st.one_of(
    st.tuples(st.just("create"), words, money, st.sampled_from([0, 0, 0, 3])),
    st.tuples(st.just("dispatch"), st.sampled_from(["lives", "down", "before", "after"])),
    st.tuples(st.just("dispatch"), st.sampled_from(["lives", "down"])),
    st.tuples(st.just("pass_time"), st.sampled_from([6, 31, 91])),
    st.tuples(st.just("pass_time"), st.sampled_from([1, 6, 31, 86_400])),
    st.tuples(st.just("change"), some, words, money),
    st.tuples(st.just("cancel"), some),
    st.tuples(st.just("call_back"), some, st.integers(1, 3)),
)
MAX_INSTRUCTIONS = 12
"""Fewer than a provider may leave unanswered in a row before it is given a rest, which the model doesn't know."""


class Killed(BaseException):
    """The process is gone."""


@dataclass
class Reality:
    """The same history, as it really happens."""

    payer: Payer
    clock: ManualClock
    up: Provider
    down: Provider
    named: list[str]

    async def create(self, word: str, wanted: tuple[str, int], days: int) -> None:
        text = f"SIM:{word}" if word else ""
        self.named += await self.payer.instruct(text, days=days, currency=wanted[0], minor=wanted[1])

    async def change(self, at: int, word: str, wanted: tuple[str, int]) -> bool:
        currency, minor = wanted
        change = Change(
            amount=str(Money(minor, currency).decimal),
            currency=currency,
            metadata={"remittanceInformation": f"SIM:{word}" if word else "no tricks"},
        )
        try:
            async with self.payer.operation() as op:
                await change_instruction(op, *self.named[at].split("/"), change)
        except Conflict:
            return False
        return True

    async def cancel(self, at: int) -> bool:
        try:
            async with self.payer.operation() as op:
                await cancel_instruction(op, *self.named[at].split("/"), "no longer wanted")
        except Conflict:
            return False
        return True

    async def dispatch(self, fate: str) -> None:
        """By a process of its own, that remembers nothing."""

        def die(_: object) -> None:
            raise Killed

        rail = Rail(self.down if fate == "down" else self.up)
        if fate == "before":
            rail.before = die
        if fate == "after":
            rail.after = die
        try:
            await Dispatcher(self.payer.app.databases, lambda *_: rail, self.payer.outbox).round(self.payer.tenant)
        except Killed:
            return

    async def call_back(self, at: int, times: int, status: str) -> None:
        reference = (await self.payer.references(self.named[at]))[-1]
        reason = "AM04" if status == "REFUSED" else ""
        body = msgspec.json.encode(
            {
                "type": "payment.told",
                "timestamp": datetime.now(UTC).isoformat(),
                "data": {"reference": reference, "status": status, "reason": reason},
            }
        )
        headers = signed_headers(signing_key(Secret(SECRET.encode())), "msg_1", body, datetime.now(UTC))
        receiver = NotificationReceiver(self.payer.app.databases, lambda *_: self.up)
        for _ in range(times):
            await receiver.receive(self.payer.tenant, "simulator", headers, body, "")

    async def states(self) -> list[tuple[str, list[str]]]:
        return [(await self.payer.status(name), await self.payer.attempts(name)) for name in self.named]


@pytest.fixture(scope="module")
async def simulator(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SimulatorProcess]:
    directory = tmp_path_factory.mktemp("simulator")
    process = SimulatorProcess(directory, Authority(directory))
    try:
        await process.start()
        yield process
    finally:
        process.end()


async def live_through(
    history: list[tuple[Any, ...]], platform: Platform, simulator: SimulatorProcess, outbox: Path
) -> None:
    """Step by step, model beside reality; then until everything has come to rest."""
    model = Model()
    clock = ManualClock(datetime.now(UTC).replace(hour=12))
    async with AsyncExitStack() as stack:
        app = (await stack.enter_async_context(platform.another_process(clock))).app
        payer = await Payer.make(app, await platform.new_tenant(), simulator, outbox)
        nowhere = free_port()
        outbound = await stack.enter_async_context(
            Outbound(
                allowed=[Destination(host="localhost", port=nowhere, loopback_ok=True)], trust=simulator.authority.ca
            )
        )
        down = Simulator(
            outbound=outbound, url=f"https://localhost:{nowhere}", secret=Secret(SECRET), clock=SystemClock()
        )
        up = await stack.enter_async_context(simulator.connector(PATIENT))
        reality = Reality(payer, clock, up, down, [])
        for step in history:
            await take(step, model, reality)
            assert await reality.states() == [
                (each.status, [attempt.status for attempt in each.attempts]) for each in model.instructions
            ], step
        for seconds in (0, 91, 6, 31, 86_400 * 4, 601, 601):
            await take(("pass_time", seconds), model, reality)
            await take(("dispatch", "lives"), model, reality)
        await compare_with_the_books(model, reality)


async def take(step: tuple[Any, ...], model: Model, reality: Reality) -> None:
    match step:
        case "create", word, wanted, days:
            if len(model.instructions) < MAX_INSTRUCTIONS:
                until_due_s = max(0, days - 1) * 86_400 - 43_200 * (days > 1)
                model.create(word, wanted, model.now + until_due_s)
                await reality.create(word, wanted, days)
        case "dispatch", fate:
            model.dispatch(fate)
            await reality.dispatch(fate)
        case "pass_time", seconds:
            model.pass_time(seconds)
            reality.clock.advance(timedelta(seconds=seconds))
        case "change", at, word, wanted if at < len(model.instructions):
            assert model.change(at, word, wanted) is await reality.change(at, word, wanted)
        case "cancel", at if at < len(model.instructions):
            assert model.cancel(at) is await reality.cancel(at)
        case "call_back", at, times if at < len(model.instructions):
            attempts = model.instructions[at].attempts
            truth = attempts[-1].truth() if attempts else ""
            if model.call_back(at):
                await reality.call_back(at, times, truth)


async def compare_with_the_books(model: Model, reality: Reality) -> None:
    payer = reality.payer
    async with payer.operation() as op:
        ids = {payer.id_of(op, name): at for at, name in enumerate(reality.named)}
    async with payer.simulator.connector() as connector:
        lines = [line for line in await connector.executions() if line.instruction in ids]
    books = Counter((ids[line.instruction], line.money.currency, line.money.minor) for line in lines)
    assert books == model.books()
    assert max(Counter(line.instruction for line in lines).values(), default=1) == 1
    states = await reality.states()
    assert {status for status, _ in states} <= {"COMPLETED", "FAILED", "CANCELLED"}
    paid = {at for at, (status, _) in enumerate(states) if status == "COMPLETED"}
    assert paid == {at for at, _, _ in books}
    assert await payer.actions("transaction.contradiction") == []


# A failure is told as it was found: making it smaller takes minutes, which `make soak` has.
unhurried = settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


@settings(unhurried, max_examples=6, derandomize=True, phases=[Phase.generate])
@given(history=st.lists(steps, min_size=40, max_size=60))
async def test_histories(history: list[tuple[Any, ...]], platform: Platform, simulator: SimulatorProcess) -> None:
    await live_through(history, platform, simulator, Path("/nonexistent"))


@pytest.mark.soak
@settings(unhurried, max_examples=1_500)
@given(history=st.lists(steps, min_size=5, max_size=80))
async def test_many_histories(history: list[tuple[Any, ...]], platform: Platform, simulator: SimulatorProcess) -> None:
    await live_through(history, platform, simulator, Path("/nonexistent"))

"""PAY-3 turns red when one world takes what belongs to the other."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from strongroom.assembly import App, Installation
from strongroom.cli.workbenches import served_here, throw_away
from strongroom.identity import Tokens
from strongroom.kernel.clock import Clock, SystemClock
from strongroom.kernel.config import Config, Environment
from strongroom.trust import Workbench
from strongroom.trust.checks.worlds import check_worlds
from strongroom.trust.stage import PROVER, account_of
from strongroom.vault.holders.file import FileHolder

SANDBOX, PRODUCTION = Environment.SANDBOX, Environment.PRODUCTION
KEYS = ("master.key", "tokens.key")


class Careless(Installation):
    """Production that doesn't look at what environment things say they belong to."""

    def prepare(self) -> None:
        """Take any folder."""
        (self.config.data_dir / "environment").unlink(missing_ok=True)
        super().prepare()

    @property
    def holder(self) -> FileHolder:  # type: ignore[override]  # a property as well, made anew every time
        return FileHolder(self.config.keys_dir, SANDBOX, SystemClock())

    def tokens(self, clock: Clock) -> Tokens:
        """Read the sandbox's."""
        return Installation(dataclasses.replace(self.config, environment=SANDBOX)).tokens(clock)

    def app(self, *, clock: Clock | None = None, connections: int = 8) -> App:
        """Sign the sandbox's keys in."""
        app = super().app(clock=clock, connections=connections)
        app.databases.environment = app.keyring.environment = SANDBOX
        return app


@pytest.fixture(scope="module")
async def production(bench: Workbench) -> AsyncIterator[Workbench]:
    """A production installation that the sandbox's keys were copied into."""

    def make(config: Config) -> Installation:
        installation = Installation(config)
        installation.prepare()
        for name in KEYS:
            shutil.copy2(bench.config.keys_dir / name, config.keys_dir / name)
        return installation

    async with throw_away(PRODUCTION, ("eu", "ch"), make) as made:
        yield made


def with_other_world(bench: Workbench, other: Workbench, kind: type[Installation]) -> Workbench:
    """The bench, with the other world served by that kind of installation."""

    @asynccontextmanager
    async def other_world(environment: Environment) -> AsyncIterator[Workbench]:
        assert environment is other.config.environment
        async with served_here(kind(other.config)) as served:
            yield served

    return dataclasses.replace(bench, other_world=other_world)


async def test_two_worlds_are_green(bench: Workbench) -> None:
    figure = await check_worlds(bench)
    assert figure.breaches == ()
    assert figure.text.startswith("keys and tokens of sandbox refused by a new production installation")


async def test_copied_keys_and_rows_are_refused_for_their_environment(bench: Workbench, production: Workbench) -> None:
    """The installation's secrets are in the wrong hands, and the labels of things still hold."""
    figure = await check_worlds(with_other_world(bench, production, Installation))
    assert figure.breaches == ()


async def test_production_that_looks_at_no_label_is_red(bench: Workbench, production: Workbench) -> None:
    try:
        figure = await check_worlds(with_other_world(bench, production, Careless))
    finally:
        (production.config.data_dir / "environment").write_text(PRODUCTION.value)
    assert "a production folder can be started as sandbox" in figure.breaches
    assert "a sandbox key in production: its token is answered 200 by GET /v1/tenant" not in figure.breaches
    assert "a sandbox key copied into production: sign-in is answered 201" in figure.breaches
    assert "a sandbox key copied into production: its token is answered 200 by GET /v1/tenant" in figure.breaches


async def test_a_key_of_the_other_environment_in_the_database_is_red(bench: Workbench, production: Workbench) -> None:
    """As when both environments were given one database."""
    async with bench.databases.operation(PROVER, account=account_of(1), region="eu") as op:
        await op.run(
            "insert into api_keys (public_key, account_id, environment, roles, sealed, created_at) "
            "values (%s, %s, 'production', '{account-admin}', '', now())",
            account_of(9),
            account_of(1),
        )
    try:
        figure = await check_worlds(with_other_world(bench, production, Installation))
    finally:
        async with bench.admin("eu") as connection:
            await connection.execute("delete from api_keys where public_key = %s", (account_of(9),))
    assert figure.breaches == ("keys of another environment live in the database eu",)


async def test_a_production_installation_is_checked_against_a_sandbox(bench: Workbench, production: Workbench) -> None:
    figure = await check_worlds(with_other_world(production, bench, Installation))
    assert figure.breaches == ()
    assert figure.text.startswith("keys and tokens of production refused by a new sandbox installation")

"""PAY-3: sandbox and production share nothing, and neither takes what belongs to the other.

A throw-away installation of the other environment is made, with its own folder, keys and database. A key of this one is
tried there, then once more after its rows have been copied over as administrator, and again after the copies were
relabelled. Nothing is ever copied into this installation.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from psycopg import sql

from strongroom.database.databases import DIRECTORY
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Refused as ClaimRefused
from strongroom.rails.marketplace import SIMULATOR, find_app
from strongroom.trust.client import SIGN_IN, Caller, Client, Key
from strongroom.trust.stage import ACCOUNTS, TENANTS, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import Workbench

_DIRECTORY: Final = {"accounts": "account_id", "tenants": "account_id", "api_keys": "account_id"}
_REGION: Final = {**_DIRECTORY, "scope_keys": "scope_id", "data_keys": "scope_id"}
"""Table → whose rows a key needs to work, those that refer to others last."""
_OWNERS: Final = [*ACCOUNTS, *TENANTS]


async def check_worlds(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    ours = bench.config.environment
    theirs = Environment.PRODUCTION if ours is Environment.SANDBOX else Environment.SANDBOX
    await _check_labels(findings, bench)
    async with bench.other_world(theirs) as other, stage(bench) as scene:
        await _check_folders(findings, bench, other)
        key = scene.here.key
        await _check_stranger(findings, f"a {ours} key in {theirs}", other, key, scene.client)
        await _remove(other, scene.here.region)
        await _copy(bench, other, scene.here.region)
        await _check_stranger(findings, f"a {ours} key copied into {theirs}", other, key, scene.client)
        await _relabel(other, scene.here.region)
        await _check_stranger(findings, f"a {ours} key copied and relabelled", other, key, scene.client)
        await _remove(other, scene.here.region)
        if not findings.breaches:
            async with stage(other) as elsewhere:
                theirs_here = f"a {theirs} key in {ours}"
                await _check_stranger(findings, theirs_here, bench, elsewhere.here.key, elsewhere.client)
                production = scene if ours is Environment.PRODUCTION else elsewhere
                await _check_simulator(findings, await production.caller(production.here))
    return findings.figure(
        f"keys and tokens of {ours} refused by a new {theirs} installation and the other way round, also with their "
        f"rows copied and relabelled; folders, databases and simulator kept apart ({findings.checked} attempts)"
    )


async def _check_labels(findings: Findings, bench: Workbench) -> None:
    """No key of the other environment lives here."""
    for name in bench.database_names:
        async with bench.admin(name) as connection:
            cursor = await connection.execute(
                "select count(*) from api_keys where environment <> %s", (bench.config.environment.value,)
            )
            row = await cursor.fetchone()
        findings.expect(row is not None and row[0] == 0, f"keys of another environment live in the database {name}")


async def _check_folders(findings: Findings, bench: Workbench, other: Workbench) -> None:
    for mine, environment in ((bench, other.config.environment), (other, bench.config.environment)):
        swapped = dataclasses.replace(mine.config, environment=environment)
        try:
            mine.claim(swapped)
        except ClaimRefused as refused:
            findings.expect(refused.code == "OTHER_ENVIRONMENT", f"a folder is refused as {refused.code}")
        else:
            findings.breach(f"a {mine.config.environment} folder can be started as {environment}")
    same = bench.admin_url.reveal() == other.admin_url.reveal()
    findings.expect(not same, "both environments use one database server with one password")


async def _check_stranger(findings: Findings, what: str, bench: Workbench, key: Key, home: Client) -> None:
    """Neither the key's signature nor a token that it got at home may open anything in `bench`."""
    client = Client(bench)
    answer = await client.send("POST", SIGN_IN, headers={"authorization": client.authorization(key)})
    findings.expect(answer.status != 201, f"{what}: sign-in is answered {answer.status}")
    visitor = Caller(client, key, await home.sign_in(key))
    for path in ("/v1/tenant", "/v1/tenant/keys", "/v1/apps/installed"):
        answer = await visitor.send("GET", path)
        findings.expect(answer.status in {401, 403}, f"{what}: its token is answered {answer.status} by GET {path}")


async def _check_simulator(findings: Findings, caller: Caller) -> None:
    app = find_app(SIMULATOR)
    findings.expect(app is not None and "production" not in app.environments, "the simulator is offered to production")
    answer = await caller.send("POST", f"/v1/marketplace/apps/{SIMULATOR}/install")
    findings.expect(answer.status == 400, f"installing the simulator in production is answered {answer.status}")
    listed = await caller.send("GET", "/v1/marketplace/apps")
    findings.expect(
        listed.status == 200 and f'"{SIMULATOR}"'.encode() not in listed.body, "production lists the simulator"
    )


async def _copy(source: Workbench, target: Workbench, region: str) -> None:
    """Carry the rows that a key needs into the throw-away installation."""
    for name, tables in ((DIRECTORY, _DIRECTORY), (region, _REGION)):
        async with source.admin(name) as reader, target.admin(name) as writer, writer.transaction():
            for table, column in tables.items():
                rows = sql.SQL("copy (select * from {} where {} = any(%s)) to stdout (format binary)").format(
                    sql.Identifier(table), sql.Identifier(column)
                )
                into = sql.SQL("copy {} from stdin (format binary)").format(sql.Identifier(table))
                async with reader.cursor().copy(rows, (_OWNERS,)) as taken, writer.cursor().copy(into) as given:
                    async for piece in taken:
                        await given.write(piece)


async def _relabel(target: Workbench, region: str) -> None:
    """Make the copied keys say that they belong where they are now."""
    for name in (DIRECTORY, region):
        async with target.admin(name) as connection:
            await connection.execute("update api_keys set environment = %s", (target.config.environment.value,))


async def _remove(target: Workbench, region: str) -> None:
    """Leave nothing of the stage, copied or its own."""
    for name, tables in ((DIRECTORY, _DIRECTORY), (region, _REGION)):
        async with target.admin(name) as connection, connection.transaction():
            if name == region:
                await connection.execute("delete from nonces")
            for table, column in reversed(tables.items()):
                statement = sql.SQL("delete from {} where {} = any(%s)")
                await connection.execute(statement.format(sql.Identifier(table), sql.Identifier(column)), (_OWNERS,))

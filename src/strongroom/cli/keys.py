"""`strongroom keys`: the keys of accounts and tenants, for whoever runs the installation.

What changes something says first what it would do, and how much; `--yes` does it. Rotations are done by the worker; a
command that waits for one does its share of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal
from uuid import UUID

import typer

from strongroom.cli import root_keys
from strongroom.cli.key_running import Advance, bar, console, now, plan, print_data, read_moment, run, tell, who
from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, Yes
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import App
    from strongroom.vault import Layer, Scope, Verified, Work
    from strongroom.vault.holders import KeyImport

LayerName = Literal["platform", "customer"]
Rotated = Literal["scope", "data", "search"]
Algorithm = Literal["RSA_AES_KEY_WRAP_SHA_256", "RSAES_OAEP_SHA_256"]
AWAY: Final = 3
"""Exit status of `verify` when nothing is broken, but a key is away, so that not everything could be looked at."""
SHOWN: Final = 50
"""Fields that don't open which are named to people; `--json` names all."""

Tenant = Annotated[UUID | None, typer.Option("--tenant", help="Whose keys: a tenant's.", show_default=False)]
Account = Annotated[UUID | None, typer.Option("--account", help="Whose keys: an account's own.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Whether to see the rotation through, with a bar.")]

app = typer.Typer(help="Look after encryption keys.", no_args_is_help=True)
app.add_typer(root_keys.app, name="root")


@app.command("list")
def list_(
    *,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """All accounts and tenants: whose key is where, in which state, and what is due or under way."""
    from strongroom.cli import key_views
    from strongroom.vault import Keys, list_keys, list_rotations

    async def look(app: App) -> list[tuple[Scope, Keys, Sequence[Work]]]:
        found = []
        for scope in await app.key_desk.scopes():
            async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
                found.append((scope, await list_keys(op), await list_rotations(op)))
        return found

    found = run(look, data_dir, environment, database)
    if as_json:
        print_data([key_views.keys_as_data(scope, keys, rotations) for scope, keys, rotations in found])
        return
    rows = [
        (scope, keys, next((work for work in rotations if not work.is_done), None)) for scope, keys, rotations in found
    ]
    console().print(key_views.overview_table(rows, now()))


@app.command("show")
def show(
    *,
    tenant: Tenant = None,
    account: Account = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """All keys of an account or a tenant, in all versions, and their rotations."""
    from strongroom.cli import key_views
    from strongroom.vault import list_keys, list_rotations

    async def look(app: App) -> None:
        scope = await _scope(app, tenant, account)
        async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
            keys, rotations = await list_keys(op), await list_rotations(op)
        if as_json:
            print_data(key_views.keys_as_data(scope, keys, rotations))
            return
        output = console()
        output.print(key_views.scope_keys_table(keys.scope_keys, now()))
        output.print(key_views.data_keys_table(keys.data_keys, now()))
        if rotations:
            output.print(key_views.rotations_table(rotations))

    run(look, data_dir, environment, database)


@app.command("rotate")
def rotate(
    *,
    tenant: Tenant = None,
    account: Account = None,
    layer: Annotated[LayerName, typer.Option("--layer", help="Whose layer of encryption.")],
    key: Annotated[
        Rotated, typer.Option("--key", help="What wraps data keys, what seals fields, or what indexes fields.")
    ],
    yes: Yes = False,
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Put a new key in the place of the one in use. Everything goes on meanwhile."""
    from strongroom.cli.key_views import describe_counts
    from strongroom.kernel.errors import Failure, Invalid
    from strongroom.vault import Layer, count_sealed, get_scope_key, list_keys

    async def act(app: App) -> None:
        scope, chosen = await _scope(app, tenant, account), Layer(layer)
        if key == "search" and chosen is not Layer.PLATFORM:
            raise Invalid(Failure("SEARCH_KEY_IS_THE_PLATFORMS", "The search key is of --layer platform."))
        async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
            current, keys = await get_scope_key(op, chosen), await list_keys(op)
            counts = await count_sealed(op, Layer.PLATFORM if key == "data" else chosen)
        wrapped = sum(data_key.layer is chosen and data_key.state != "DESTROYED" for data_key in keys.data_keys)
        if key == "scope":
            said = f"the {layer} scope key, version {current.version} ({current.source}), gives way to a new one, made "
            said += f"and kept here. {wrapped} data keys are wrapped again; no field is touched."
            amount = wrapped
        elif key == "search":
            said = "a new key indexes what customers are searched by from now on; entries under the old one are made "
            said += "again, and found all the while."
            amount = 0
        else:
            said = (
                f"A new data key of the {layer} layer seals from now on. {describe_counts(counts)} are looked at, and "
            )
            said += "sealed again where they are under the old one, which is destroyed at the end."
            amount = 2 * sum(counts.values())
        if not yes:
            _plan(scope, said, as_json=as_json, dataKeys=wrapped, fields=counts)
            return
        work = await _rotate(app, scope, chosen, key)
        await _see_through(app, scope, work, amount or None, wait=wait, as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("renew")
def renew(
    *,
    layer: Annotated[LayerName, typer.Option("--layer", help="Whose layer of encryption.")],
    before: Annotated[
        str | None,
        typer.Option("--before", help="Only keys made before this moment (ISO 8601). To go on after a stop, the same."),
    ] = None,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Put new scope keys in the place of everybody's that were made here. Everything goes on meanwhile.

    Exit status 3 when some were left out, because somebody is working on them or their key can't be used.
    """
    from strongroom.vault import Layer, Renewed, renew_scope_keys

    moment = now() if before is None else read_moment(before)

    async def act(app: App) -> Renewed | None:
        scopes = await app.key_desk.scopes()
        if not yes:
            said = f"Scope keys of the {layer} layer that were made here before {moment.isoformat()}, of {len(scopes)} "
            said += "accounts and tenants, give way to new ones, and what they wrap is wrapped again; no field is "
            said += "touched. Keys that customers brought, or hold themselves, stay."
            plan(said, as_json=as_json, scopes=len(scopes), before=moment.isoformat())
            return None
        with bar(len(scopes)) as advance:
            renewed = await renew_scope_keys(
                app.databases,
                app.keyring,
                who(),
                Layer(layer),
                scopes,
                before=moment,
                progress=lambda done: advance("accounts and tenants", done.seen),
            )
        data = {"before": moment.isoformat(), "scopeKeys": renewed.scope_keys, "dataKeys": renewed.data_keys}
        said = f"{renewed.scope_keys:,} scope keys are new, and {renewed.data_keys:,} data keys wrapped under them."
        if renewed.left:
            said += f" {renewed.left:,} were left out; do it again with --before {moment.isoformat()} for these."
        tell(as_json, {**data, "left": renewed.left}, said)
        return renewed

    renewed = run(act, data_dir, environment, database)
    if renewed is not None and renewed.left:
        raise typer.Exit(AWAY)


@app.command("attach")
def attach(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    holder: Annotated[str, typer.Option("--holder", help="Where it is held: a section of holders.toml.")],
    reference: Annotated[str, typer.Option("--reference", help="What it is called there: a label, an ARN, a name.")],
    yes: Yes = False,
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Put a key that is held elsewhere, and only used there, in the place of the customer's."""
    from strongroom.vault.keyring import in_time

    async def act(app: App) -> None:
        scope = await _scope(app, tenant)
        if not yes:
            held = await in_time(app.keyring.holders.get(holder, scope.account).describe(reference), holder)
            said = f"{holder} has a key {reference}: {held.algorithm}, {held.state.value.lower()}, "
            said += f"{'extractable' if held.is_extractable else 'not extractable'}. It is tried, then takes the "
            said += "place of the customer's key; the data keys are wrapped again under it."
            shown = {"algorithm": held.algorithm, "state": held.state.value, "extractable": held.is_extractable}
            _plan(scope, said, as_json=as_json, **shown)
            return
        work = await app.key_desk.attach(who(), scope, holder, reference)
        await _see_through(app, scope, work, await _count_data_keys(app, scope), wait=wait, as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("import")
def import_(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="First step: where to write the public key to wrap it under.")
    ] = None,
    token: Annotated[
        str | None, typer.Option("--token", help="Second step: the token that the first one gave.")
    ] = None,
    wrapped: Annotated[
        Path | None, typer.Option("--wrapped", help="Second step: the file with the wrapped key.")
    ] = None,
    algorithm: Annotated[
        Algorithm, typer.Option("--algorithm", help="How it is wrapped.")
    ] = "RSA_AES_KEY_WRAP_SHA_256",
    yes: Yes = False,
    wait: Wait = True,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Bring a key of one's own, in two steps: `--public-key FILE`, then `--token … --wrapped FILE --yes`."""
    from strongroom.kernel.errors import Failure, Invalid

    if (public_key is None) == (token is None or wrapped is None):
        raise Invalid(
            Failure("IMPORT_STEP_NOT_NAMED", "Give --public-key for the first step, or --token and --wrapped.")
        )

    async def begin(app: App) -> KeyImport:
        return await app.import_desk.begin(who(), await _scope(app, tenant))

    async def finish(app: App, given: str, content: bytes) -> None:
        from strongroom.vault.holders import WrappingAlgorithm

        scope = await _scope(app, tenant)
        if not yes:
            said = "the wrapped key is opened and kept here; it takes the place of the customer's key, and the data "
            said += "keys are wrapped again under it."
            _plan(scope, said, as_json=as_json, bytes=len(content))
            return
        chosen = WrappingAlgorithm(algorithm)
        work = await app.import_desk.finish(who(), scope, given, algorithm=chosen, wrapped=content)
        await _see_through(app, scope, work, await _count_data_keys(app, scope), wait=wait, as_json=as_json)

    if token is not None and wrapped is not None:
        given, content = token, _read(wrapped)
        run(lambda app: finish(app, given, content), data_dir, environment, database)
    elif public_key is not None:
        begun = run(begin, data_dir, environment, database)
        _write(public_key, begun.public_key)
        data = {"importToken": begun.token, "publicKey": str(public_key), "expiresOn": begun.expires_at.isoformat()}
        said = f"{public_key} has the public key. Wrap a key of 256 bits under it, then come back within a day with\n"
        tell(as_json, data, f"{said}  --token {begun.token} --wrapped FILE --algorithm {algorithm} --yes")


@app.command("test")
def test(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Have the customer's key wrap something and open it again."""

    async def act(app: App) -> None:
        tested = await app.key_desk.test(who(), await _scope(app, tenant))
        held = tested.held
        data = {
            "algorithm": held.algorithm,
            "extractable": held.is_extractable,
            "milliseconds": round(tested.milliseconds, 3),
        }
        tell(as_json, data, f"It works: {held.algorithm}, wrapped and opened in {tested.milliseconds:.1f} ms.")

    run(act, data_dir, environment, database)


@app.command("disable")
def disable(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Make everything under the customer's key unreadable, in every process within 5 seconds, until it is enabled."""

    async def act(app: App) -> None:
        scope = await _scope(app, tenant)
        if not yes:
            fields, counts = await _sensitive(app, scope)
            said = f"{fields} can't be read until the key is enabled again; payments that need them wait."
            _plan(scope, said, as_json=as_json, fields=counts)
            return
        await app.key_desk.disable(who(), scope)
        await _tell_key(app, scope, "Disabled. `strongroom keys enable` undoes it.", as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("enable")
def enable(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Let a disabled key be used again."""

    async def act(app: App) -> None:
        scope = await _scope(app, tenant)
        if not yes:
            fields, counts = await _sensitive(app, scope)
            _plan(
                scope,
                f"{fields} can be read again, if the key's holder lets it be used.",
                as_json=as_json,
                fields=counts,
            )
            return
        await app.key_desk.enable(who(), scope)
        await _tell_key(app, scope, "Enabled.", as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("destroy")
def destroy(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    approve: Annotated[bool, typer.Option("--approve", help="Approve what somebody else has asked for.")] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Ask for the customer's key to be destroyed, or approve it. Final after a delay, in which it can be cancelled."""

    async def act(app: App) -> None:
        scope, delay = await _scope(app, tenant), app.key_desk.destroy_delay
        if not yes:
            fields, counts = await _sensitive(app, scope)
            said = f"{fields} are lost for good, in every backup too, {delay.days} days after a second person has "
            said += "approved. Until then `strongroom keys cancel` takes it back."
            _plan(scope, said, as_json=as_json, fields=counts, delayDays=delay.days)
            return
        if approve:
            key = await app.key_desk.approve_destroying(who(), scope)
            await _tell_key(app, scope, f"Approved. Final on {key.destroy_after:%Y-%m-%d %H:%M} UTC.", as_json=as_json)
            return
        await app.key_desk.ask_to_destroy(who(), scope)
        said = "Asked for. Nothing happens until somebody else approves it: another API key, or another user here."
        await _tell_key(app, scope, said, as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("cancel")
def cancel(
    *,
    tenant: Annotated[UUID, typer.Option("--tenant", help="Whose key.")],
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Take the destruction of a key back. There is nothing to lose by it, so it is done at once."""

    async def act(app: App) -> None:
        scope = await _scope(app, tenant)
        await app.key_desk.cancel_destroying(who(), scope)
        await _tell_key(app, scope, "Cancelled. The key stays.", as_json=as_json)

    run(act, data_dir, environment, database)


@app.command("verify")
def verify(
    *,
    tenant: Tenant = None,
    account: Account = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Open every sealed field, and name those that don't open. Of everybody, unless somebody is named.

    Exit status 1 when something doesn't open, 3 when a key is away, so that not everything could be looked at.
    """
    from strongroom.cli.key_views import scope_name, verified_as_data

    async def look(app: App) -> list[tuple[Scope, Verified]]:
        is_named = tenant is not None or account is not None
        scopes = [await _scope(app, tenant, account)] if is_named else await app.key_desk.scopes()
        with bar(None) as advance:
            return [(scope, await _verify(app, scope, advance)) for scope in scopes]

    found = run(look, data_dir, environment, database)
    broken = [(scope, finding) for scope, verified in found for finding in verified.findings]
    away = sum(verified.away for _, verified in found)
    if as_json:
        print_data([verified_as_data(scope, verified) for scope, verified in found])
    else:
        output = console()
        for scope, finding in broken[:SHOWN]:
            where = f"{finding.table}.{finding.column} {finding.row}".strip()
            output.print(f"{finding.code}: {scope_name(scope)}, {where}", style="red", markup=False)
        if len(broken) > SHOWN:
            output.print(f"… and {len(broken) - SHOWN:,} more; --json names all.", style="red")
        opened, lost = sum(each.opened for _, each in found), sum(each.lost for _, each in found)
        output.print(
            f"{opened:,} fields open, {len(broken):,} don't, {away:,} couldn't be looked at: their key is away."
        )
        if lost:
            output.print(f"{lost:,} were under a key that was destroyed since.")
    if broken or away:
        raise typer.Exit(1 if broken else AWAY)


async def _verify(app: App, scope: Scope, advance: Advance) -> Verified:
    """What doesn't open in a scope; where its very keys don't, that."""
    from strongroom.cli.key_views import scope_name
    from strongroom.kernel.errors import Broken
    from strongroom.vault import Finding, Verified, verify_scope

    def show(verified: Verified) -> None:
        advance(scope_name(scope), verified.seen)

    try:
        return await verify_scope(app.databases, who(), scope, show)
    except Broken as error:
        return Verified(findings=[Finding(table="data_keys", column="wrapped", row="", code=error.code)])


def _plan(scope: Scope, said: str, *, as_json: bool, **data: Any) -> None:
    from strongroom.cli.key_views import scope_as_data, scope_name

    plan(f"{scope_name(scope)}: {said}", as_json=as_json, **scope_as_data(scope), **data)


async def _tell_key(app: App, scope: Scope, said: str, *, as_json: bool) -> None:
    """What was done, and how the customer's key is now."""
    from strongroom.cli.key_views import scope_key_as_data
    from strongroom.vault import Layer, get_scope_key

    async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
        key = await get_scope_key(op, Layer.CUSTOMER)
    tell(as_json, scope_key_as_data(key), said)


async def _rotate(app: App, scope: Scope, layer: Layer, key: Rotated) -> Work:
    match key:
        case "scope":
            return await app.key_desk.rotate_scope_key(who(), scope, layer)
        case "data":
            return await app.key_desk.rotate_data_key(who(), scope, layer)
        case "search":
            return await app.key_desk.rotate_search_key(who(), scope)


async def _see_through(app: App, scope: Scope, work: Work, amount: int | None, *, wait: bool, as_json: bool) -> None:
    """Do a rotation's work with everybody else who does, until it has ended."""
    from strongroom.assembly import SPLITS
    from strongroom.cli.key_views import scope_name, work_as_data

    if wait:
        with bar(amount) as advance:
            ended = await app.key_desk.tend(scope, SPLITS, lambda work: advance(work.kind, work.seen))
        work = ended or work
    said = f"{work.kind} of {scope_name(scope)}, {work.layer} layer, to version {work.version}: "
    if wait:
        said += f"done, {work.done:,} changed."
    else:
        said += "begun. The worker does it; `strongroom keys show` says how far it is."
    tell(as_json, work_as_data(work), said)


async def _count_data_keys(app: App, scope: Scope) -> int:
    from strongroom.vault import Layer, list_keys

    async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
        return len((await list_keys(op)).data(Layer.CUSTOMER))


async def _sensitive(app: App, scope: Scope) -> tuple[str, Mapping[str, int]]:
    """How many fields need the customer's key, in words and by table."""
    from strongroom.cli.key_views import describe_counts
    from strongroom.vault import Layer, count_sealed

    async with app.operation(who(), account=scope.account, tenant=scope.tenant) as op:
        counts = await count_sealed(op, Layer.CUSTOMER)
    return describe_counts(counts), counts


async def _scope(app: App, tenant: UUID | None, account: UUID | None = None) -> Scope:
    """Whose keys are meant.

    Raises errors.Invalid (`SCOPE_NOT_NAMED`), errors.NotFound (`TENANT_NOT_FOUND`, `ACCOUNT_NOT_FOUND`).
    """
    from strongroom.kernel.errors import Failure, Invalid
    from strongroom.kernel.ids import AccountId, TenantId
    from strongroom.vault import Scope

    if tenant is not None and account is None:
        owner, _ = await app.databases.locate_tenant(TenantId(tenant))
        return Scope(account=owner, tenant=TenantId(tenant))
    if account is not None and tenant is None:
        await app.databases.locate_account(AccountId(account))
        return Scope(account=AccountId(account))
    raise Invalid(Failure("SCOPE_NOT_NAMED", "Say whose keys: give --tenant or --account, with an id."))


def _read(path: Path) -> bytes:
    """A small file. Raises errors.Refused (`FILE_NOT_FOUND`)."""
    from strongroom.kernel.errors import Failure, Refused

    try:
        return path.read_bytes()
    except OSError:
        raise Refused(Failure("FILE_NOT_FOUND", "There is no file {path}.", {"path": str(path)})) from None


def _write(path: Path, content: str) -> None:
    """Raises errors.Refused (`FILE_NOT_WRITABLE`)."""
    from strongroom.kernel.errors import Failure, Refused

    try:
        path.write_text(content)
    except OSError as error:
        raise Refused(
            Failure(
                "FILE_NOT_WRITABLE",
                "{path} can't be written: {reason}. Nothing was changed.",
                {"path": str(path), "reason": error.strerror or type(error).__name__},
            )
        ) from None

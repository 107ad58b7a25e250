"""`strongroom cards`: the card vault that runs, from the installation's own command line. No number is ever shown.

Everything is asked of the vault itself, so it has to be up (`strongroom serve`). What changes something only says what
it would do, until it is given `--yes`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from strongroom.cli import card_transfers
from strongroom.cli.key_running import Advance, bar, console, now, plan, print_data, tell
from strongroom.cli.settings import AsJson, DataDir, EnvironmentOption, NoPassphrase, PassphraseFile, Yes, config_for
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.vault.card_operator import CardOperator, Purpose

T = TypeVar("T")
Tenant = Annotated[UUID, typer.Option("--tenant", help="Whose cards.")]
OneTenant = Annotated[UUID | None, typer.Option("--tenant", help="Of one tenant only. [default: all]")]
app = typer.Typer(help="Look after the card vault.", no_args_is_help=True)
keys = typer.Typer(help="The keys that cards are sealed and fingerprinted under.", no_args_is_help=True)
root = typer.Typer(help="The card vault's root key.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(root, name="root")
app.command("receiver-key")(card_transfers.receiver_key)
app.command("export")(card_transfers.export)
app.command("import")(card_transfers.import_)
app.command("approve")(card_transfers.approve)
app.command("cancel")(card_transfers.cancel)
app.command("transfer")(card_transfers.transfer)


@app.callback()
def cards() -> None:
    """Look after the card vault."""


@app.command("list")
def list_(
    *,
    tenant: Tenant,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """A tenant's cards: tokens and what may be shown."""
    from rich.table import Table

    async def act(vault: CardOperator) -> None:
        found: list[dict[str, Any]] = []
        with bar(None) as advance:
            while page := await vault.cards(tenant, found[-1]["token"] if found else ""):
                found += [
                    {
                        "token": card.token,
                        "brand": card.brand,
                        "maskedNumber": card.masked_number,
                        "expiry": f"{card.expiry_year}-{card.expiry_month:02}",
                    }
                    for card in page
                ]
                advance("cards", len(found))
        if as_json:
            print_data(found)
            return
        table = Table("Token", "Scheme", "Number", "Expiry")
        for card in found:
            table.add_row(*card.values())
        console().print(table)

    _run(act, data_dir, environment)


@app.command("delete")
def delete(
    *,
    token: Annotated[str, typer.Argument(help="The card's token.")],
    tenant: Tenant,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Forget a card for good: number, mask and fingerprint. Its token goes on standing where it was put."""

    async def act(vault: CardOperator) -> None:
        if not yes:
            plan(f"The card {token} is forgotten. Nothing brings it back.", as_json=as_json, token=token)
            return
        await vault.forget(tenant, token)
        tell(as_json, {"token": token, "done": True}, f"The card {token} is forgotten.")

    _run(act, data_dir, environment)


@keys.command("list")
def list_keys(
    *,
    tenant: OneTenant = None,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Every version of every key: its state, its age, and until when it may be used."""
    from rich.table import Table

    async def act(vault: CardOperator) -> None:
        told: list[dict[str, Any]] = []
        table = Table("Tenant", "Key", "State", "Root", "Made", "Due by")
        for each in await _tenants(vault, tenant):
            found = await vault.keys(each)
            for key in found.keys:
                due = "" if key.due_timestamp is None else _day(key.due_timestamp)
                late = key.due_timestamp is not None and key.due_timestamp < now().timestamp() * 1000
                name = f"{key.purpose} {key.version}"
                told.append(
                    {
                        "tenantId": str(each),
                        "purpose": key.purpose,
                        "version": key.version,
                        "state": key.state,
                        "rootVersion": key.root_version,
                        "made": _day(key.created_timestamp),
                        "dueBy": due or None,
                        "overdue": late,
                        "behind": found.behind,
                    }
                )
                made = _day(key.created_timestamp)
                shown = f"{due} overdue" if late else due
                table.add_row(str(each), name, key.state, str(key.root_version or ""), made, shown)
        if as_json:
            print_data(told)
        else:
            console().print(table)

    _run(act, data_dir, environment)


@keys.command("rotate")
def rotate(
    *,
    tenant: OneTenant = None,
    fingerprint: Annotated[
        bool, typer.Option("--fingerprint", help="The fingerprint key, not the one that seals: on suspicion only.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """A new key for every tenant, everything brought under it, the old one destroyed; what is unfinished is finished.

    Cards are taken and sent all the while. It may be stopped at any time, and started again.
    """
    purpose: Purpose = "fingerprint" if fingerprint else "seal"

    async def act(vault: CardOperator) -> None:
        tenants = await _tenants(vault, tenant)
        unfinished = [each for each in tenants if (await vault.keys(each)).behind]
        if not yes:
            said = f"{len(tenants) - len(unfinished)} tenants get a new key ({purpose}); "
            said += f"{len(unfinished)} have an unfinished rotation, which is finished instead. "
            said += "All their cards are brought under the new key, and the old one is destroyed."
            if fingerprint:
                said += " Fingerprints change; those told before are worth nothing then."
            plan(said, as_json=as_json, tenants=len(tenants), unfinished=len(unfinished), purpose=purpose)
            return
        rows, destroyed, kept = 0, 0, 0
        with bar(len(tenants)) as advance:
            for at, each in enumerate(tenants):
                if each not in unfinished:
                    await vault.begin(each, purpose)
                rows += await vault.renew(each, partial(_renewing, advance, at))
                destroyed += len(await vault.finish(each))
                kept += sum(key.state == "RETIRING" for key in (await vault.keys(each)).keys)
                advance("tenants", at + 1)
        data = {"tenants": len(tenants), "rows": rows, "destroyed": destroyed, "retiring": kept, "purpose": purpose}
        said = f"{len(tenants)} tenants: {rows} rows brought under the newest keys, {destroyed} old keys destroyed."
        if kept:
            said += f" {kept} old keys stay for requests to providers of the last 90 days; rotate again after that."
        tell(as_json, data, said)

    _run(act, data_dir, environment)


@root.command("show")
def show_root(
    *,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Its versions, what is under each, whether it is under a passphrase, and whether memory stays out of swap."""

    async def act(vault: CardOperator) -> None:
        found = await vault.root()
        data = {
            "newest": found.newest,
            "keys": dict(found.keys),
            "protected": found.protected,
            "memoryLocked": found.memory_locked,
        }
        named = ", ".join(f"version {version} ({count} keys)" for version, count in found.keys.items())
        said = f"{named}; version {found.newest} wraps. Its file is "
        said += "under a passphrase" if found.protected else "in clear, guarded by the file system alone"
        said += "; the vault's memory "
        tell(as_json, data, said + ("is kept out of swap." if found.memory_locked else "may get into swap."))

    _run(act, data_dir, environment)


@root.command("rotate")
def rotate_root(
    *,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """A new version of the root key, and all tenants' keys wrapped under it; what is unfinished is finished."""

    async def act(vault: CardOperator) -> None:
        tenants = await vault.tenants()
        if not yes:
            said = f"A new version of the card vault's root key wraps the keys of {len(tenants)} tenants again. Copy "
            said += "the folder `cards` to a safe place before and after. The old version goes on opening until "
            plan(f"{said}`strongroom cards root end` ends it.", as_json=as_json, tenants=len(tenants))
            return
        newest, done = await vault.rotate_root(), 0
        with bar(len(tenants)) as advance:
            for at, each in enumerate(tenants, 1):
                done += await vault.rewrap(each)
                advance("tenants", at)
        said = f"Version {newest} of the root key wraps everything now; {done} keys were wrapped again."
        tell(as_json, {"newest": newest, "keys": done, "tenants": len(tenants)}, said)

    _run(act, data_dir, environment)


@root.command("end")
def end_root(
    *,
    version: Annotated[int, typer.Argument(help="The version to end.")],
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """End an old version of the root key: what only it could open, backups of the database included, is gone."""

    async def act(vault: CardOperator) -> None:
        if not yes:
            said = f"Version {version} is forgotten. Backups of the vault's database from before the rotation open no "
            plan(said + "more, unless you keep a copy of the folder.", as_json=as_json, version=version)
            return
        await vault.end_root(version)
        tell(as_json, {"ended": version}, f"Version {version} is ended.")

    _run(act, data_dir, environment)


@root.command("passphrase")
def passphrase(
    *,
    file: PassphraseFile = None,
    remove: NoPassphrase = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
) -> None:
    """Put the card vault's root key under another passphrase, which `strongroom serve` needs from the next start on."""
    from strongroom.cli.passphrase import new_passphrase, refuse_both
    from strongroom.vault.holders import CARD_VAULT

    refuse_both(file, remove=remove)

    async def act(vault: CardOperator) -> None:
        if not yes:
            said = "The root key is left in clear" if remove else "The root key is encrypted under the new passphrase"
            plan(f"{said}; what it wraps stays as it is.", as_json=as_json, remove=remove)
            return
        new = new_passphrase(file, CARD_VAULT, remove=remove)
        await vault.change_passphrase(new)
        said = f"Changed. Start `strongroom serve` again, with it in {CARD_VAULT.file_variable} or typed when asked."
        tell(as_json, {"protected": new is not None}, "Changed." if new is None else said)

    _run(act, data_dir, environment)


async def _tenants(vault: CardOperator, tenant: UUID | None) -> list[UUID]:
    return list(await vault.tenants()) if tenant is None else [tenant]


def _renewing(advance: Advance, at: int, done: int) -> None:
    advance(f"tenants ({done} rows of this one)", at)


def _day(timestamp: int) -> str:
    return f"{datetime.fromtimestamp(timestamp / 1000, UTC):%Y-%m-%d}"


def _run(act: Callable[[CardOperator], Awaitable[T]], data_dir: Path | None, environment: Environment) -> T:
    """Do something with the card vault that is up. Raises errors.Unavailable (`NOT_BEING_SERVED`)."""
    import asyncio
    import os
    import pwd

    from strongroom.vault.card_operator import CardOperator

    served = card_transfers.find_installation(config_for(data_dir, environment, None))

    async def opened() -> T:
        vault = served.card_vault("operator")
        try:
            return await act(CardOperator(vault, pwd.getpwuid(os.getuid()).pw_name))
        finally:
            await vault.aclose()

    return asyncio.run(opened())

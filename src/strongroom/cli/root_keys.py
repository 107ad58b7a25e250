"""`strongroom keys root`: the root key, which everything else is wrapped under."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.key_running import bar, plan, run, tell
from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption, NoPassphrase, PassphraseFile, Yes
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import App

app = typer.Typer(help="Look after the root key.", no_args_is_help=True)


@app.callback()
def root() -> None:
    """Look after the root key."""


@app.command("show")
def show(
    *,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Its versions, what is wrapped under each, and whether it is under a passphrase."""
    from strongroom.vault import count_under_root
    from strongroom.vault.holders import is_protected

    async def look(app: App) -> None:
        own, keys_dir = app.installation.holder, app.config.keys_dir
        counts = await count_under_root(app.databases, await app.key_desk.scopes())
        protected = is_protected(keys_dir / "master.key")
        versions = {str(version): counts.get(version, 0) for version in own.root_versions}
        data = {"newest": own.newest_root, "inDatabase": versions, "protected": protected, "folder": str(keys_dir)}
        named = ", ".join(f"version {version} ({count} keys in the database)" for version, count in versions.items())
        guarded = "under a passphrase" if protected else "in clear, guarded by the file system alone"
        said = f"{named}; version {own.newest_root} wraps. {keys_dir / 'master.key'} is {guarded}. "
        tell(as_json, data, f"{said}{len(own.references())} keys are kept beside it.")

    run(look, data_dir, environment, database)


@app.command("rotate")
def rotate(
    *,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Make a new version of the root key and wrap everything under it; an unfinished rotation is finished instead."""
    from strongroom.kernel.errors import Conflict
    from strongroom.vault import count_under_root, rewrap_under_root

    async def act(app: App) -> None:
        own, scopes = app.installation.holder, await app.key_desk.scopes()
        counts = await count_under_root(app.databases, scopes)
        behind = sum(count for version, count in counts.items() if version != own.newest_root)
        if not yes:
            total = sum(counts.values()) + len(own.references())
            said = f"{_back_up(app.config.keys_dir)}\nThen a new version of the root key wraps {total} keys again; the "
            said += (
                "old version goes on opening until `strongroom keys root end` ends it. Everything goes on meanwhile."
            )
            plan(said, as_json=as_json, keys=total, newest=own.newest_root)
            return
        if not behind:
            try:
                await own.rotate_root()
            except Conflict as error:
                if error.code != "ROOT_ROTATION_UNFINISHED":
                    raise
        with bar(None) as advance:
            kept = await own.rewrap_kept(lambda done, _: advance("kept keys", done))
        with bar(len(scopes)) as advance:
            stored = await rewrap_under_root(
                app.databases, own, scopes, lambda done, _: advance("accounts and tenants", done)
            )
        data = {"newest": own.newest_root, "kept": kept, "inDatabase": stored, "folder": str(app.config.keys_dir)}
        said = f"Version {own.newest_root} of the root key wraps everything now: {kept} kept keys and {stored} in the "
        tell(as_json, data, f"{said}database were wrapped again.\n{_back_up(app.config.keys_dir)}")

    run(act, data_dir, environment, database)


@app.command("end")
def end(
    *,
    version: Annotated[int, typer.Argument(help="The version to end.")],
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """End an old version of the root key: what only it could open, backups of the database included, is gone."""
    from strongroom.vault import end_root_version

    async def act(app: App) -> None:
        own = app.installation.holder
        if not yes:
            said = f"Version {version} of the root key is forgotten. Backups of the database from before the rotation "
            said += f"open no more, unless you keep a copy of the folder.\n{_back_up(app.config.keys_dir)}"
            plan(said, as_json=as_json, versions=list(own.root_versions))
            return
        await end_root_version(app.databases, own, await app.key_desk.scopes(), version)
        data = {"versions": list(own.root_versions), "newest": own.newest_root}
        tell(as_json, data, f"Version {version} is ended.\n{_back_up(app.config.keys_dir)}")

    run(act, data_dir, environment, database)


@app.command("passphrase")
def passphrase(
    *,
    file: PassphraseFile = None,
    remove: NoPassphrase = False,
    yes: Yes = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Protect the root key by another passphrase. Processes that run have to be started again with it."""
    from strongroom.cli.passphrase import new_passphrase, refuse_both

    refuse_both(file, remove=remove)

    async def act(app: App) -> None:
        keys_dir = app.config.keys_dir
        if not yes:
            said = "The root key is left in clear" if remove else "The root key is encrypted under the new passphrase"
            said += "; what it wraps stays as it is. Start what runs again afterwards, with the new passphrase."
            plan(f"{_back_up(keys_dir)}\n{said}", as_json=as_json, remove=remove)
            return
        new = new_passphrase(file, remove=remove)
        await app.installation.holder.change_passphrase(new)
        said = f"Changed. Start what runs again.\n{_back_up(keys_dir)}"
        tell(as_json, {"protected": new is not None, "folder": str(keys_dir)}, said)

    run(act, data_dir, environment, database)


def _back_up(keys_dir: Path) -> str:
    return (
        f"Copy {keys_dir} to a safe place where the backups of the database are not, before and after; without it "
        "nothing in the database opens."
    )

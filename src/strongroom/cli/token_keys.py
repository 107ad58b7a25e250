"""`strongroom keys tokens`: the key that access tokens are signed with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from strongroom.cli.key_running import plan, run, tell
from strongroom.cli.settings import AsJson, Database, DataDir, EnvironmentOption
from strongroom.kernel.config import Environment

if TYPE_CHECKING:
    from strongroom.assembly import App

Yes = Annotated[bool, typer.Option("--yes", help="Do it. Otherwise it is only said what would happen.")]
AtOnce = Annotated[
    bool, typer.Option("--at-once", help="The old key may be in the wrong hands: refuse what it signed from now on.")
]
app = typer.Typer(help="Look after the key that access tokens are signed with.", no_args_is_help=True)


@app.callback()
def tokens() -> None:
    """Look after the key that access tokens are signed with."""


@app.command("rotate")
def rotate(
    *,
    yes: Yes = False,
    at_once: AtOnce = False,
    as_json: AsJson = False,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    database: Database = None,
) -> None:
    """Sign with another key from now on. The old one stays published until what it signed has ended."""
    from strongroom.identity import rotate_signing_key

    async def act(app: App) -> None:
        if at_once:
            consequence = "All access tokens that there are end within a second; everybody has to sign in again."
        else:
            consequence = "Access tokens that there are stay good until they end, 15 minutes at most."
        if not yes:
            plan(f"A new key would sign access tokens. {consequence}", as_json=as_json)
            return
        made = rotate_signing_key(app.installation.tokens_file, app.clock.now(), at_once=at_once)
        tell(as_json, {"keyId": made, "atOnce": at_once}, f"The key {made} signs access tokens now. {consequence}")

    run(act, data_dir, environment, database)

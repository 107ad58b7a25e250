"""The command line: `strongroom`.

Commands import what they need when they run, so that `--help` is quick. Whatever goes wrong on purpose
(`errors.StrongroomError`) is one red line and exit status 1.
"""

from __future__ import annotations

import sys
import warnings

import typer

from strongroom.cli import access, accounts, cards, customers, demo, invite, ip_lists, keys, prove, run, serve, work

app = typer.Typer(
    name="strongroom",
    help="An open-source payments platform whose security proves itself.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("prove")(prove.prove)
app.command("invite")(invite.invite)
app.command("serve")(serve.serve)
app.command("work")(work.work)
app.command("serve-api", hidden=True)(serve.serve_api)
app.command("serve-worker", hidden=True)(work.serve_worker)
app.add_typer(access.app, name="access")
app.add_typer(accounts.app, name="accounts")
app.add_typer(keys.app, name="keys")
app.add_typer(customers.app, name="customers")
app.add_typer(cards.app, name="cards")
app.add_typer(ip_lists.app, name="ip-lists")


def main() -> None:
    """Run the command that the arguments name."""
    from rich.console import Console

    from strongroom.kernel.errors import StrongroomError

    # The package with the database's programs asks for a runtime directory that we don't use.
    warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")
    try:
        app()
    except StrongroomError as error:
        console = Console(stderr=True, soft_wrap=True)
        for failure in error.failures:
            console.print(f"{failure.code}: {failure.message}", style="red", markup=False, highlight=False)
        sys.exit(1)


__all__ = ["app", "main"]

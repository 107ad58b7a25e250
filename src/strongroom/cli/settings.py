"""The options that many commands share, and the settings that they make."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from strongroom.kernel.config import MAIL_SENDER, Config, Environment
from strongroom.kernel.errors import Failure, Refused
from strongroom.kernel.networks import parse_range
from strongroom.kernel.secret import Secret

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="STRONGROOM_DATA_DIR",
        help="Folder of the installation: data, keys, files. [default: by environment, see the manual]",
        show_default=False,
    ),
]
EnvironmentOption = Annotated[
    Environment,
    typer.Option("--environment", envvar="STRONGROOM_ENVIRONMENT", help="Two worlds that share nothing."),
]
Database = Annotated[
    str | None,
    typer.Option(
        "--database",
        envvar="STRONGROOM_DATABASE",
        help="URL of your own PostgreSQL (16 or newer; several hosts allowed) instead of the embedded one. Better "
        "given in the variable, since a command line can be seen by everybody.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it. Otherwise it is only said what would happen.")]
PassphraseFile = Annotated[
    Path | None, typer.Option("--file", help="A file (0600) with the new passphrase; asked for otherwise.")
]
NoPassphrase = Annotated[bool, typer.Option("--remove", help="Leave the root key without one.")]


def config_for(
    data_dir: Path | None,
    environment: Environment,
    database: str | None,
    *,
    host: str = "127.0.0.1",
    port: int = 8443,
    simulator_port: int = 8444,
    cards_port: int = 8445,
    cards_inner_port: int = 8446,
    processes: int = 1,
    certificate: Path | None = None,
    certificate_key: Path | None = None,
    trusted_proxies: Sequence[str] = (),
) -> Config:
    """The settings.

    Raises errors.Refused: `FILE_NOT_FOUND` for a certificate or key that isn't there, `PROXY_NOT_RECOGNISED` for a
    proxy that is no network.
    """
    try:
        for proxy in trusted_proxies:
            parse_range(proxy)
    except ValueError as error:
        raise Refused(Failure("PROXY_NOT_RECOGNISED", "{reason}.", {"reason": str(error)})) from None
    for path in (certificate, certificate_key):
        if path is not None and not path.is_file():
            raise Refused(Failure("FILE_NOT_FOUND", "There is no file {path}.", {"path": str(path)}))
    return Config(
        data_dir=(data_dir or default_data_dir(environment)).resolve(),
        environment=environment,
        database_url=Secret(database) if database else None,
        host=host,
        port=port,
        simulator_port=simulator_port,
        cards_port=cards_port,
        cards_inner_port=cards_inner_port,
        processes=processes,
        certificate=certificate,
        certificate_key=certificate_key,
        mail_server=Secret(server) if (server := os.environ.get("STRONGROOM_MAIL_SERVER")) else None,
        mail_sender=os.environ.get("STRONGROOM_MAIL_SENDER") or MAIL_SENDER,
        trusted_proxies=tuple(trusted_proxies),
    )


def default_data_dir(environment: Environment) -> Path:
    """`/var/lib/strongroom/…` for root, else below the user's data home (XDG base directory specification)."""
    if os.geteuid() == 0:
        return Path("/var/lib/strongroom") / environment.value
    home = os.environ.get("XDG_DATA_HOME", "")
    base = Path(home) if home.startswith("/") else Path.home() / ".local" / "share"
    return base / "strongroom" / environment.value

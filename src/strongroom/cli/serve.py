"""`strongroom serve`: the whole platform, kept up until it is told to stop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from strongroom.cli.settings import Database, DataDir, EnvironmentOption, config_for
from strongroom.kernel.config import Environment


def serve(
    *,
    data_dir: DataDir = None,
    environment: EnvironmentOption = Environment.SANDBOX,
    host: Annotated[str, typer.Option("--host", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Port of the API; 0 takes a free one.")] = 8443,
    simulator_port: Annotated[
        int, typer.Option("--simulator-port", min=0, max=65535, help="Port of the simulator; 0 takes a free one.")
    ] = 8444,
    cards_port: Annotated[
        int, typer.Option("--cards-port", min=0, max=65535, help="Port of the card vault; 0 takes a free one.")
    ] = 8445,
    cards_inner_port: Annotated[
        int,
        typer.Option("--cards-inner-port", min=0, max=65535, help="Its port for our own processes; 0: a free one."),
    ] = 8446,
    processes: Annotated[int, typer.Option("--processes", min=1, max=64, help="How many processes serve the API.")] = 1,
    database: Database = None,
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Your own certificate with its chain (PEM).")
    ] = None,
    certificate_key: Annotated[Path | None, typer.Option("--certificate-key", help="Its key (PEM).")] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            "--trusted-proxy",
            help="Network (CIDR) of proxies whose X-Forwarded-For is believed; may be given several times.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Start the platform and keep it up: database, API over TLS, card vault and, in the sandbox, the simulator."""
    from strongroom.assembly import Installation
    from strongroom.cli.passphrase import ask_passphrase, take_cards_passphrase
    from strongroom.cli.supervisor import Supervisor, choose_port
    from strongroom.kernel.telemetry import configure_logs, forbid_core_files

    configure_logs()
    forbid_core_files()
    config = config_for(
        data_dir,
        environment,
        database,
        host=host,
        port=choose_port(host, port),
        simulator_port=choose_port("127.0.0.1", simulator_port) if environment is Environment.SANDBOX else 0,
        cards_port=choose_port(host, cards_port),
        cards_inner_port=choose_port("127.0.0.1", cards_inner_port),
        processes=processes,
        certificate=certificate,
        certificate_key=certificate_key,
        trusted_proxies=trusted_proxy or (),
    )
    ask_passphrase(config.keys_dir)
    Supervisor(Installation(config), take_cards_passphrase(config.cards_dir)).run()


def serve_api() -> None:
    """One part of `serve`: the processes of the API. The settings come by environment variables."""
    import os
    import resource
    from functools import partial

    from strongroom.assembly import Installation, asgi, from_variables
    from strongroom.cli.web_server import MAX_CONNECTIONS, WebServer

    config = from_variables(os.environ)
    certificate = Installation(config).certificate()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MAX_CONNECTIONS
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))
    WebServer(
        host=config.host,
        port=config.port,
        processes=config.processes,
        chain=certificate.chain,
        key=certificate.key,
    ).serve(target_loader=partial(asgi, os.getpid()), wrap_loader=False)

"""The supervisor: starts the parts of the platform as processes of their own, restarts those that die, and stops all
of them in order.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from rich.console import Console

from strongroom.assembly import ENVIRONMENT_VARIABLE, Installation, to_variables
from strongroom.identity import Certificate
from strongroom.identity.certificates import write_private
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import Failure, StrongroomError, Unavailable
from strongroom.kernel.secret import Secret
from strongroom.kernel.telemetry import end_with_parent

log = structlog.get_logger(__name__)

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 30.0
FIRST_PAUSE_S: Final = 0.5
LONGEST_PAUSE_S: Final = 8.0
"""A part that dies again and again is started again after pauses that double, up to this."""
STEADY_AFTER_S: Final = 5.0
"""A part that lived this long starts with the first pause again."""
DATABASE_PAUSE_S: Final = 2.0
"""How long a database that doesn't start is left alone."""
CERTIFICATES_EVERY_S: Final = 10.0
"""How often it is looked whether a certificate is due for renewal, or was replaced."""
_LOOK_EVERY_S: Final = 0.25


class Part:
    """One child process: its command, and how it has fared."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        variables: Mapping[str, str] | None,
        certificate: Callable[[], Certificate] | None = None,
        handed: Callable[[], bytes] | None = None,
    ) -> None:
        """`variables`: settings, on top of our own environment; None: it is told none of ours, and inherits no secret.
        `handed`: what it reads from its standard input.
        """
        self.name = name
        self._handed = handed
        self._certificate = certificate
        self._chain = b"" if certificate is None else certificate().chain.read_bytes()
        self._command = [sys.executable, "-P", *command]
        self._variables = variables
        self._process: subprocess.Popen[bytes] | None = None
        self._started_at = 0.0
        self._next_pause_s = FIRST_PAUSE_S
        self._due_at = 0.0

    def look_after(self) -> None:
        """Start it when it isn't running and its pause is over."""
        now = time.monotonic()
        if self._process is not None:
            status = self._process.poll()
            if status is None:
                return
            steady = now - self._started_at >= STEADY_AFTER_S
            pause_s = FIRST_PAUSE_S if steady else self._next_pause_s
            self._next_pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._due_at = now + pause_s
            self._process = None
            log.warning("serve.part_ended", part=self.name, status=status, again_in_s=pause_s)
        if now >= self._due_at:
            self._started_at = now
            self._process = subprocess.Popen(
                self._command,
                env=_without_ours(os.environ) if self._variables is None else {**os.environ, **self._variables},
                stdin=subprocess.DEVNULL if self._handed is None else subprocess.PIPE,
                start_new_session=True,
                preexec_fn=partial(end_with_parent, os.getpid()),  # noqa: PLW1509  # this process has one thread
            )
            if self._handed is not None and self._process.stdin is not None:
                # Less than a pipe holds, so this waits for nobody.
                with contextlib.suppress(BrokenPipeError), self._process.stdin as pipe:
                    pipe.write(self._handed())

    def look_after_certificate(self) -> None:
        """Renew the certificate that it serves when that is due, and have it take up a new one.

        The API takes it up without dropping a request (SIGHUP); another part ends, and is started again with it.
        """
        if self._certificate is None:
            return
        try:
            chain = self._certificate().chain.read_bytes()
        except (StrongroomError, OSError) as error:
            log.warning("serve.certificate_unusable", part=self.name, error=str(error))
            return
        if chain != self._chain and self._process is not None:
            self._chain = chain
            self._process.send_signal(signal.SIGHUP)
            log.info("serve.certificate_changed", part=self.name)

    def stop(self) -> None:
        """End it; kill it when it takes too long."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            log.warning("serve.part_killed", part=self.name)
            self._process.kill()
            self._process.wait()
        self._process = None


class Supervisor:
    """Keeps an installation up."""

    def __init__(self, installation: Installation, cards_passphrase: Secret[str] | None = None) -> None:
        self._installation = installation
        self._cards_passphrase = cards_passphrase
        self._told_to_stop = threading.Event()
        self._database_due_at = 0.0

    def run(self) -> None:
        """Start everything, and return when everything is stopped again (SIGINT, SIGTERM, SIGHUP).

        Raises errors.Unavailable (`DATABASE_NOT_STARTED`, `API_NOT_STARTED`) when it doesn't come up.
        """
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, lambda *_: self._told_to_stop.set())
        parts: Sequence[Part] = ()
        try:
            self._installation.prepare()
            # So that a missing passphrase ends this here, and what is wrong with holders is said before all else.
            self._installation.holders()
            self._installation.certificate()
            self._installation.start()
            parts = self._parts()
            self._keep_up(parts)
        finally:
            self._told_where.unlink(missing_ok=True)
            for part in parts:
                part.stop()
            self._installation.stop()

    @property
    def _told_where(self) -> Path:
        """The file that tells other commands where everything is (`strongroom.cli.workbenches.find_served`)."""
        return self._installation.config.data_dir / "serve.json"

    def _parts(self) -> Sequence[Part]:
        """The parts, in the order in which they are stopped."""
        installation, config = self._installation, self._installation.config
        parts = [
            Part("api", ["-m", "strongroom.cli", "serve-api"], to_variables(config), installation.certificate),
            Part("worker", ["-m", "strongroom.cli", "serve-worker"], to_variables(config)),
        ]
        parts.append(self._card_vault())
        if config.environment is Environment.SANDBOX:
            certificate = installation.simulator_certificate()
            command = [
                "-m", "strongroom.rails.simulator",
                "--data", str(config.data_dir / "simulator"),
                "--port", str(config.simulator_port),
                "--certificate", str(certificate.chain),
                "--key", str(certificate.key),
                "--secret-file", str(installation.simulator_secret_file()),
                "--callback-ca", str(installation.ca_file),
            ]  # fmt: skip
            parts.append(Part("simulator", command, None, installation.simulator_certificate))
        return parts

    def _card_vault(self) -> Part:
        installation, config = self._installation, self._installation.config
        public, inner = installation.certificate(), installation.cards_certificate()
        here = "127.0.0.1" if config.host in {"0.0.0.0", "::"} else config.host  # noqa: S104  recognised, not bound
        command = [
            "-m", "strongroom.vault.cards",
            "--folder", str(config.cards_dir),
            "--environment", config.environment.value,
            "--host", config.host,
            "--port", str(config.cards_port),
            "--certificate", str(public.chain),
            "--key", str(public.key),
            "--inner-port", str(config.cards_inner_port),
            "--inner-certificate", str(inner.chain),
            "--inner-key", str(inner.key),
            "--clients", str(installation.authority.certificate),
            "--api-url", f"https://{f'[{here}]' if ':' in here else here}:{config.port}",
        ]  # fmt: skip
        if config.certificate is None:
            command += ["--api-trust", str(installation.authority.certificate)]
        if config.environment is Environment.SANDBOX:
            simulator = f"https://127.0.0.1:{config.simulator_port}"
            command += ["--simulator", simulator, "--simulator-trust", str(installation.authority.certificate)]
        return Part("cards", command, None, installation.cards_certificate, self._for_card_vault)

    def _for_card_vault(self) -> bytes:
        """What the card vault alone may know."""
        passphrase = None if self._cards_passphrase is None else self._cards_passphrase.reveal()
        database = self._installation.cards_database_url.reveal()
        return json.dumps({"database": database, "passphrase": passphrase}).encode()

    def _keep_up(self, parts: Sequence[Part]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        announced, certificates_due = False, time.monotonic() + CERTIFICATES_EVERY_S
        while not self._told_to_stop.is_set():
            self._look_after_database()
            for part in parts:
                part.look_after()
            if not announced:
                announced = self._announce()
                if not announced and time.monotonic() > deadline:
                    raise Unavailable(
                        Failure(
                            "API_NOT_STARTED",
                            "The API did not start within {seconds} seconds. What it said is above.",
                            {"seconds": int(START_TIMEOUT_S)},
                        )
                    )
            if time.monotonic() >= certificates_due:
                certificates_due = time.monotonic() + CERTIFICATES_EVERY_S
                for part in parts:
                    part.look_after_certificate()
            self._told_to_stop.wait(_LOOK_EVERY_S)

    def _look_after_database(self) -> None:
        server = self._installation.server
        if server is None or server.alive or time.monotonic() < self._database_due_at:
            return
        log.warning("serve.database_ended")
        try:
            server.start()
        except Unavailable as error:
            log.warning("serve.database_not_started", code=error.code, message=str(error))
            self._database_due_at = time.monotonic() + DATABASE_PAUSE_S

    def _announce(self) -> bool:
        """Say where everything is, once the API accepts connections."""
        config = self._installation.config
        with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
            if probe.connect_ex((config.host, config.port)) != 0:
                return False
        host = f"[{config.host}]" if ":" in config.host else config.host
        simulator = f"https://127.0.0.1:{config.simulator_port}" if config.environment is Environment.SANDBOX else None
        where = {
            "url": f"https://{host}:{config.port}",
            "simulator": simulator,
            "cards": f"https://{host}:{config.cards_port}",
            "cards_inner": f"https://127.0.0.1:{config.cards_inner_port}",
            "pids": [os.getpid()],
        }
        write_private(self._told_where, json.dumps(where).encode())
        console = Console(highlight=False, soft_wrap=True)
        console.print(f"API          https://{host}:{config.port}")
        console.print(f"Card vault   https://{host}:{config.cards_port}")
        if config.certificate is None:
            console.print(f"CA file      {self._installation.ca_file}", markup=False)
        if config.environment is Environment.SANDBOX:
            console.print(f"Simulator    https://127.0.0.1:{config.simulator_port}")
        console.print(f"Data         {config.data_dir} ({config.environment.value})", markup=False)
        sys.stdout.flush()
        return True


def _without_ours(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment without our settings, among which are passphrases and the administrator's way to the database."""
    return {name: value for name, value in variables.items() if not name.startswith(ENVIRONMENT_VARIABLE)}


def choose_port(host: str, port: int) -> int:
    """The port, or a free one for 0.

    Raises errors.Unavailable (`PORT_IN_USE`) when somebody else listens there already: the web server shares its port
    among its processes, so that two servers on one port would not notice each other.
    """
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(
                Failure(
                    "PORT_IN_USE",
                    "Can't listen on {host}:{port} ({reason}). Choose another with --port.",
                    {"host": host, "port": port, "reason": error.strerror or type(error).__name__},
                )
            ) from error
        return int(probe.getsockname()[1])

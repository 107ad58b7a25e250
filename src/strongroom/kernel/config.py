"""The settings of one installation, parsed once."""

from __future__ import annotations

import enum
import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from strongroom.kernel.secret import Secret

REGIONS: tuple[str, ...] = ("eu", "ch")
"""The regions of an installation unless it says otherwise."""


MAIL_SENDER = "strongroom@localhost"
"""Whom letters are from unless an installation says otherwise."""
_HTTPS = 443


class Environment(enum.StrEnum):
    """Two worlds that share nothing: keys, data and providers of one are refused by the other (promise PAY-3)."""

    SANDBOX = "sandbox"
    PRODUCTION = "production"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything an installation can be told. All files live below `data_dir`."""

    data_dir: Path
    environment: Environment = Environment.SANDBOX
    database_url: Secret[str] | None = None
    """None: the embedded server. Otherwise a libpq URL of one's own server; several hosts allowed; TLS is verified."""
    regions: tuple[str, ...] = REGIONS
    host: str = "127.0.0.1"
    port: int = 8443
    simulator_port: int = 8444
    cards_port: int = 8445
    """The card vault's public door, for card forms and holders of API keys; on `host`."""
    cards_inner_port: int = 8446
    """Its inner door, for our own processes alone; on the loopback interface."""
    processes: int = 1
    certificate: Path | None = None
    """One's own server certificate (PEM, with its chain) and its key; None: a local authority makes one."""
    certificate_key: Path | None = None
    names: tuple[str, ...] = field(default=("localhost", "127.0.0.1", "::1"))
    """DNS names and addresses that the local authority's certificate is good for."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of the proxies whose `X-Forwarded-For` is believed. Without any, the header means nothing."""

    @property
    def public_host(self) -> str:
        """The name or address that others are told: the one listened on, or, for all of them, the first of `names`."""
        if self.host in {"0.0.0.0", "::", ""}:  # noqa: S104  recognised, not bound
            return self.names[0]
        return f"[{self.host}]" if ":" in self.host else self.host

    mail_server: Secret[str] | None = None
    """`smtp://user:password@host:587` or `smtps://…:465`; None: letters of a sandbox are put into `mail_dir`."""
    mail_sender: str = MAIL_SENDER

    internal_providers: tuple[str, ...] = ()
    """Identity providers (`host:port`) that may be on this machine or in a private network; all others are public."""
    providers_ca: Path | None = None
    """The authority (PEM) of identity providers' certificates; None: the system's."""
    name_servers: tuple[str, ...] = ()
    """Whom (`address:port`) the DNS is asked through for the records of mail domains; none: the system's."""

    @property
    def portal_origin(self) -> str:
        """Where browsers find the portals. Passkeys are bound to a name, so one of `names` where the host is none."""
        host = self.public_host
        if _is_address(host):
            host = next((name for name in self.names if not _is_address(name)), host)
        return f"https://{host}" if self.port == _HTTPS else f"https://{host}:{self.port}"

    @property
    def authorities(self) -> frozenset[str]:
        """The names and addresses, with the port, under which the API is reached."""
        hosts = {self.public_host, *(f"[{name}]" if ":" in name else name for name in self.names)}
        ports = {self.port, urlsplit(self.portal_origin).port or _HTTPS}
        return frozenset(f"{host}:{port}" for host in hosts for port in ports)

    @property
    def mail_dir(self) -> Path:
        """Letters that would be sent, were there a mail server."""
        return self.data_dir / "mail"

    @property
    def keys_dir(self) -> Path:
        """Master key, token signing key, certificates: 0700, files 0600."""
        return self.data_dir / "keys"

    @property
    def cards_dir(self) -> Path:
        """The card vault's own root key, password and list of destinations: nobody else's business."""
        return self.data_dir / "cards"

    @property
    def files_dir(self) -> Path:
        """`outbox/` for files to banks, `inbox/` for files from them."""
        return self.data_dir / "files"


def _is_address(host: str) -> bool:
    """Whether it is an IP address, an IPv6 one in brackets or not, rather than a name."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True

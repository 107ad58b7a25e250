"""Apps in a tenant: offered by the marketplace, installed once, configured, uninstalled when nothing needs them.

The settings of an installed app (its credentials, the account that pays) are sealed and write-only: no actor reads them
back through the API; the dispatcher gets them by `get_settings`. An app stays installed while a draft of any scheme
names it or a payment is still with it, so that published rules can be carried out and every outcome enquired about.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Operation
from strongroom.database.operation import Row
from strongroom.kernel.errors import AlreadyExists, Conflict, Failure, Invalid, NotFound
from strongroom.kernel.ids import AppId
from strongroom.rails import marketplace
from strongroom.rails.bank import profile
from strongroom.rails.contract import App

MAX_SETTINGS: Final = 50
MAX_SETTING_LENGTH: Final = 4_000
"""Characters in one setting's value; room for a certificate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledApp:
    """An app in a tenant. `is_configured` says that it has the settings it needs, never what they are."""

    app: App
    is_configured: bool
    installed_at: datetime
    updated_at: datetime


def list_marketplace(op: Operation) -> Sequence[App]:
    """The apps that can be installed in this environment."""
    require(op, Permission.APPS_READ)
    return marketplace.list_apps(op.environment.value)


def get_from_marketplace(op: Operation, app_id: str) -> App:
    """One of them. Raises errors.NotFound (`APP_NOT_FOUND`)."""
    require(op, Permission.APPS_READ)
    return _offered(op, app_id)


async def install(op: Operation, app_id: str) -> InstalledApp:
    """Put an app into the tenant, without settings.

    Raises errors.NotFound (`APP_NOT_FOUND`) and errors.AlreadyExists (`APP_ALREADY_INSTALLED`).
    """
    require(op, Permission.APPS_WRITE)
    app = _offered(op, app_id)
    added = await op.run(
        "insert into installed_apps (tenant_id, app_id, sealed, installed_at, updated_at) values (%s, %s, %s, %s, %s) "
        "on conflict do nothing",
        op.tenant,
        app.id,
        _seal(op, app.id, {}),
        op.now,
        op.now,
    )
    if not added:
        raise AlreadyExists(
            Failure("APP_ALREADY_INSTALLED", "The app {appId} is installed in this tenant already.", {"appId": app.id})
        )
    await record(op, "app.install", "app", app.id)
    return InstalledApp(app=app, is_configured=not app.settings, installed_at=op.now, updated_at=op.now)


async def configure(op: Operation, app_id: str, settings: Mapping[str, str]) -> InstalledApp:
    """Replace an app's settings by these.

    Raises errors.NotFound (`APP_NOT_INSTALLED`) and errors.Invalid (`SETTING_IS_REQUIRED`, `SETTING_IS_INVALID`,
    `SETTING_NOT_RECOGNISED`), all of them together.
    """
    require(op, Permission.APPS_WRITE)
    installed = await _get(op, app_id)
    _check_settings(installed.app, settings)
    await op.run(
        "update installed_apps set sealed = %s, updated_at = %s where tenant_id = %s and app_id = %s",
        _seal(op, installed.app.id, settings),
        op.now,
        op.tenant,
        installed.app.id,
    )
    await record(op, "app.configure", "app", installed.app.id)
    return InstalledApp(app=installed.app, is_configured=True, installed_at=installed.installed_at, updated_at=op.now)


async def uninstall(op: Operation, app_id: str) -> None:
    """Take an app out of the tenant, with its settings.

    Raises errors.NotFound (`APP_NOT_INSTALLED`) and errors.Conflict (`APP_IN_USE`) while a draft of a scheme names it
    or a payment is with it.
    """
    require(op, Permission.APPS_WRITE)
    await lock_configuration(op)
    installed = await _get(op, app_id)
    names_it = msgspec.json.encode([{"apps": [{"app_id": installed.app.id}]}]).decode()
    row = await op.row(
        """
        select exists (select from scheme_drafts where tenant_id = %s and rules @> %s::jsonb),
               exists (select from transactions where tenant_id = %s and app_id = %s
                       and status in ('INTENDED', 'PROCESSING', 'UNCONFIRMED'))
        """,
        op.tenant,
        names_it,
        op.tenant,
        installed.app.id,
    )
    in_scheme, in_payment = row or (False, False)
    if in_scheme or in_payment:
        raise Conflict(
            Failure(
                "APP_IN_USE",
                "The app {appId} can't be uninstalled: {use}.",
                {
                    "appId": installed.app.id,
                    "use": "take it out of every draft of every scheme first" if in_scheme else "payments are with it",
                },
            )
        )
    await op.run("delete from installed_apps where tenant_id = %s and app_id = %s", op.tenant, installed.app.id)
    await record(op, "app.uninstall", "app", installed.app.id)


async def list_installed(op: Operation) -> Sequence[InstalledApp]:
    """The tenant's apps, by id."""
    require(op, Permission.APPS_READ)
    rows = await op.rows(
        "select app_id, sealed, installed_at, updated_at from installed_apps where tenant_id = %s order by app_id",
        op.tenant,
    )
    return [_read(op, *row) for row in rows]


async def get_installed(op: Operation, app_id: str) -> InstalledApp:
    """One of them. Raises errors.NotFound (`APP_NOT_INSTALLED`)."""
    require(op, Permission.APPS_READ)
    return await _get(op, app_id)


async def find_installed_ids(op: Operation) -> Mapping[AppId, bool]:
    """The tenant's apps → whether each is configured. For routing; needs no permission of its own."""
    rows = await op.rows(
        "select app_id, sealed, installed_at, updated_at from installed_apps where tenant_id = %s", op.tenant
    )
    return {AppId(row[0]): _read(op, *row).is_configured for row in rows}


async def get_settings(op: Operation, app_id: str) -> Mapping[str, str]:
    """An app's settings in clear, for carrying payments out.

    Only actors that may configure the app, or are one of our own processes, get here.

    Raises errors.NotFound (`APP_NOT_INSTALLED`).
    """
    require(op, Permission.APPS_WRITE)
    _, sealed, _, _ = await _select(op, app_id)
    return _open(op, app_id, sealed)


async def find_paying_accounts(op: Operation) -> frozenset[str]:
    """The IBANs that the tenant pays from by file, as configured now; compact and in upper case."""
    require(op, Permission.TRANSACTIONS_READ)
    rows = await op.rows("select app_id, sealed from installed_apps where tenant_id = %s", op.tenant)
    return frozenset(
        profile.parse(settings).account.iban
        for app_id, sealed in rows
        if marketplace.get_app(app_id).is_file_rail and (settings := _open(op, app_id, sealed))
    )


async def lock_configuration(op: Operation) -> None:
    """Let nobody else change which apps and schemes the tenant has until this operation ends.

    Names are unique across schemes, and an app and the drafts that name it hold each other; no index can say either.
    """
    await op.row("select from tenants where tenant_id = %s for no key update", op.tenant)


async def _get(op: Operation, app_id: str) -> InstalledApp:
    return _read(op, *await _select(op, app_id))


async def _select(op: Operation, app_id: str) -> Row:
    # What is not in the catalogue can't be installed, and some texts (with a NUL) can't even be asked for.
    row = None
    if marketplace.find_app(app_id) is not None:
        row = await op.row(
            "select app_id, sealed, installed_at, updated_at from installed_apps where tenant_id = %s and app_id = %s",
            op.tenant,
            app_id,
        )
    if row is None:
        raise _not_installed(app_id)
    return row


def _read(op: Operation, app_id: str, sealed: bytes, installed_at: datetime, updated_at: datetime) -> InstalledApp:
    app = marketplace.get_app(app_id)
    is_configured = not app.settings or bool(_open(op, app_id, sealed))
    return InstalledApp(app=app, is_configured=is_configured, installed_at=installed_at, updated_at=updated_at)


def _offered(op: Operation, app_id: str) -> App:
    app = marketplace.get_app(app_id)
    if op.environment.value not in app.environments:
        raise NotFound(
            Failure(
                "APP_NOT_FOUND",
                "The app {appId} is not offered in {environment}.",
                {"appId": app_id, "environment": op.environment.value},
            )
        )
    return app


def _check_settings(app: App, settings: Mapping[str, str]) -> None:
    if app.id == marketplace.SEPA_CREDIT_TRANSFER:
        profile.parse(settings)
        return
    failures = [
        Failure("SETTING_IS_REQUIRED", "The setting {setting} is missing: {what}", {"setting": name, "what": what})
        for name, what in app.settings.items()
        if not settings.get(name, "").strip()
    ]
    failures += [
        Failure("SETTING_NOT_RECOGNISED", "The app has no setting {setting}.", {"setting": name[:50]})
        for name in settings
        if name not in app.settings
    ]
    if failures:
        raise Invalid(*failures)


def _seal(op: Operation, app_id: str, settings: Mapping[str, str]) -> bytes:
    return op.cipher.seal("installed_apps", "sealed", _row_id(op, app_id), msgspec.msgpack.encode(dict(settings)))


def _open(op: Operation, app_id: str, sealed: bytes) -> dict[str, str]:
    content = op.cipher.open("installed_apps", "sealed", _row_id(op, app_id), sealed)
    return msgspec.msgpack.decode(content, type=dict[str, str])


def _row_id(op: Operation, app_id: str) -> bytes:
    return op.cipher.index("installed_apps", "app_id", app_id)


def _not_installed(app_id: str) -> NotFound:
    return NotFound(
        Failure("APP_NOT_INSTALLED", "The app {appId} is not installed in this tenant.", {"appId": app_id[:100]})
    )

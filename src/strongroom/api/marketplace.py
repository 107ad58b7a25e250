"""The marketplace, and the apps that a tenant has installed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from strongroom.access import Permission
from strongroom.api.reading import Collector, Number, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation
from strongroom.payments import apps
from strongroom.payments.apps import MAX_SETTING_LENGTH, MAX_SETTINGS, InstalledApp
from strongroom.rails.contract import App, PaymentMethod

_MARKETPLACE: Final = "/v1/marketplace/apps"
_INSTALLED: Final = "/v1/apps/installed"


class PaymentMethodBody(msgspec.Struct, rename="camel"):
    """A way to pay that an app offers."""

    id: str
    name: str
    icon_url: str | None
    tags: list[str]
    is_credit_card: bool
    supports_direct_sale: bool
    supports_recurring: bool
    provider_warning_required: bool


class AppBody(msgspec.Struct, rename="camel"):
    """An app of the marketplace. Empty countries or currencies mean any. `settings`: what its configuration takes."""

    app_id: str
    name: str
    developer_id: str
    developer_name: str
    description: str
    icon_url: str | None
    tags: list[str]
    supported_payment_methods: list[PaymentMethodBody]
    supported_countries: list[str]
    supported_currencies: list[str]
    settings: dict[str, str]


class AppsBody(msgspec.Struct):
    """The marketplace."""

    apps: list[AppBody]


class InstalledAppBody(msgspec.Struct, rename="camel"):
    """An app in the tenant. `isConfigured`: it has all the settings that it needs; they are never shown."""

    app_id: str
    name: str
    is_configured: bool
    installed_on: datetime
    last_modified: datetime


class InstalledAppsBody(msgspec.Struct):
    """The tenant's apps."""

    apps: list[InstalledAppBody]


class ConfigurationRequest(msgspec.Struct):
    """An app's settings by name, as the marketplace lists them; texts, numbers, true or false."""


async def _list_marketplace(op: Operation, _: Call) -> Reply:
    return Reply(200, AppsBody([_app(app) for app in apps.list_marketplace(op)]))


async def _get_from_marketplace(op: Operation, call: Call) -> Reply:
    return Reply(200, _app(apps.get_from_marketplace(op, call.path["appId"])))


async def _install(op: Operation, call: Call) -> Reply:
    return Reply(202, _installed(await apps.install(op, call.path["appId"])))


async def _list_installed(op: Operation, _: Call) -> Reply:
    return Reply(200, InstalledAppsBody([_installed(app) for app in await apps.list_installed(op)]))


async def _get_installed(op: Operation, call: Call) -> Reply:
    return Reply(200, _installed(await apps.get_installed(op, call.path["appId"])))


async def _configure(op: Operation, call: Call) -> Reply:
    settings = _read_settings(read_object(call.body))
    return Reply(200, _installed(await apps.configure(op, call.path["appId"], settings)))


async def _uninstall(op: Operation, call: Call) -> Reply:
    await apps.uninstall(op, call.path["appId"])
    return Reply(200)


def _read_settings(source: Mapping[str, Any]) -> dict[str, str]:
    """Settings as texts; null is as good as none."""
    found = Collector()
    settings: dict[str, str] = {}
    if len(source) > MAX_SETTINGS:
        found.add("SETTING_COUNT_OUT_OF_RANGE", "An app has at most {maxCount} settings.", maxCount=MAX_SETTINGS)
        found.check()
    for name, value in source.items():
        match value:
            case None:
                continue
            case bool():
                settings[name] = "true" if value else "false"
            case int():
                settings[name] = str(value)
            case Number(text=text):
                settings[name] = text
            case str() if len(value) <= MAX_SETTING_LENGTH:
                settings[name] = value
            case _:
                found.add(
                    "SETTING_IS_INVALID",
                    "setting {setting} must be a text of at most {maxLength} characters, a number, true or false",
                    setting=name[:50],
                    maxLength=MAX_SETTING_LENGTH,
                )
    found.check()
    return settings


def _app(app: App) -> AppBody:
    return AppBody(
        app_id=app.id,
        name=app.name,
        developer_id=app.developer_id,
        developer_name=app.developer_name,
        description=app.description,
        icon_url=None,
        tags=list(app.tags),
        supported_payment_methods=[_method(method) for method in app.methods],
        supported_countries=sorted(app.countries),
        supported_currencies=sorted(app.currencies),
        settings=dict(app.settings),
    )


def _method(method: PaymentMethod) -> PaymentMethodBody:
    return PaymentMethodBody(
        id=method.id,
        name=method.name,
        icon_url=None,
        tags=list(method.tags),
        is_credit_card="card" in method.tags,
        supports_direct_sale=method.supports_direct_sale,
        supports_recurring=method.supports_recurring,
        provider_warning_required=False,
    )


def _installed(installed: InstalledApp) -> InstalledAppBody:
    return InstalledAppBody(
        app_id=installed.app.id,
        name=installed.app.name,
        is_configured=installed.is_configured,
        installed_on=installed.installed_at,
        last_modified=installed.updated_at,
    )


def _route(method: str, path: str, summary: str, permission: Permission, **more: Any) -> Route:
    tag = "Marketplace" if path.startswith(_MARKETPLACE) else "Apps"
    return Route(
        method=method, path=path, summary=summary, tag=tag, access=Access.TENANT, permission=permission, **more
    )


_READ, _WRITE = Permission.APPS_READ, Permission.APPS_WRITE
ROUTES: Final[Sequence[Route]] = (
    _route("GET", _MARKETPLACE, "The marketplace", _READ, operation=_list_marketplace, replies={200: AppsBody}),
    _route(
        "GET", _MARKETPLACE + "/{appId}", "An app", _READ, operation=_get_from_marketplace, replies={200: AppBody}
    ),
    _route(
        "POST", _MARKETPLACE + "/{appId}/install", "Install an app", _WRITE, operation=_install,
        replies={202: InstalledAppBody},
    ),
    _route("GET", _INSTALLED, "The tenant's apps", _READ, operation=_list_installed, replies={200: InstalledAppsBody}),
    _route(
        "GET", _INSTALLED + "/{appId}", "An installed app", _READ, operation=_get_installed,
        replies={200: InstalledAppBody},
    ),
    _route(
        "POST", _INSTALLED + "/{appId}/configuration", "Set an app's settings, which are never shown again", _WRITE,
        operation=_configure, request=ConfigurationRequest, replies={200: InstalledAppBody},
    ),
    _route(
        "POST", _INSTALLED + "/{appId}/uninstall", "Uninstall an app that no scheme names", _WRITE,
        operation=_uninstall, replies={200: None},
    ),
)  # fmt: skip

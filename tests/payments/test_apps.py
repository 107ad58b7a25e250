"""Apps in a tenant: install, configure, uninstall, and who may."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from strongroom.assembly import App
from strongroom.database import Operation
from strongroom.kernel.config import Environment
from strongroom.kernel.errors import AlreadyExists, Conflict, Forbidden, Invalid, NotFound
from strongroom.payments import apps, schemes
from strongroom.payments.instruments import add_many
from tests.fixtures.platform import Client, Platform
from tests.payments.world import IBAN, SEPA, SIMULATOR, World, bank_account, draft, instruct, publish_scheme

SETTINGS = {"iban": IBAN, "holder": "Alpine Mutual", "bic": "COBADEFFXXX"}


@pytest.fixture
async def world(app: App, tenant: Client) -> World:
    return World.of(app, tenant)


async def test_an_app_is_installed_once(world: World) -> None:
    async with world.operation() as op:
        installed = await apps.install(op, SIMULATOR)
        assert (installed.app.id, installed.is_configured) == (SIMULATOR, True)
        with pytest.raises(AlreadyExists) as refused:
            await apps.install(op, SIMULATOR)
        assert refused.value.code == "APP_ALREADY_INSTALLED"
        assert [found.app.id for found in await apps.list_installed(op)] == [SIMULATOR]
        assert await apps.get_installed(op, SIMULATOR) == installed
    assert await world.actions("app.") == [("app.install", SIMULATOR, "")]


@pytest.mark.parametrize("app_id", ["nobody", "", "simulator\0", "x" * 5_000])
async def test_what_is_not_offered_is_not_found(world: World, app_id: str) -> None:
    async with world.operation() as op:
        for ask, code in (
            (apps.install, "APP_NOT_FOUND"),
            (apps.get_installed, "APP_NOT_INSTALLED"),
            (apps.uninstall, "APP_NOT_INSTALLED"),
            (apps.get_settings, "APP_NOT_INSTALLED"),
        ):
            with pytest.raises(NotFound) as refused:
                await ask(op, app_id)
            assert refused.value.code == code


async def test_the_simulator_is_not_offered_in_production(world: World) -> None:
    async with world.operation() as op:
        assert {found.id for found in apps.list_marketplace(op)} == {SIMULATOR, SEPA}
        op.environment = Environment.PRODUCTION
        assert {found.id for found in apps.list_marketplace(op)} == {SEPA}
        for ask in (lambda: apps.install(op, SIMULATOR), lambda: _now(apps.get_from_marketplace, op)):
            with pytest.raises(NotFound) as refused:
                await ask()
            assert refused.value.code == "APP_NOT_FOUND"


async def _now(ask: Callable[[Operation, str], object], op: Operation) -> None:
    ask(op, SIMULATOR)


async def test_settings_are_sealed_and_come_back_to_the_dispatcher_only(world: World) -> None:
    async with world.operation() as op:
        assert not (await apps.install(op, SEPA)).is_configured
        assert await apps.find_installed_ids(op) == {SEPA: False}
        configured = await apps.configure(op, SEPA, SETTINGS)
        assert configured.is_configured
        assert IBAN not in repr(configured)
        assert await apps.find_installed_ids(op) == {SEPA: True}
        assert await apps.get_settings(op, SEPA) == SETTINGS
        row = await op.row("select sealed from installed_apps where app_id = %s", SEPA)
        assert row is not None
        assert IBAN.encode() not in row[0]
        await apps.configure(op, SEPA, {**SETTINGS, "holder": "Alpine Life"})
        assert (await apps.get_settings(op, SEPA))["holder"] == "Alpine Life"
    assert await world.actions("app.") == [
        ("app.install", SEPA, ""),
        ("app.configure", SEPA, ""),
        ("app.configure", SEPA, ""),
    ]
    async with world.operation("tenant-app-read") as op:
        with pytest.raises(Forbidden):
            await apps.get_settings(op, SEPA)


async def test_settings_are_checked_all_together(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SEPA)
        await apps.install(op, SIMULATOR)
        with pytest.raises(Invalid) as refused:
            await apps.configure(op, SEPA, {"iban": "DE00", "bic": "COBADEFFXXX", "colour": "red"})
        assert [(failure.code, failure.values["setting"]) for failure in refused.value.failures] == [
            ("SETTING_IS_INVALID", "iban"),
            ("SETTING_IS_REQUIRED", "holder"),
            ("SETTING_NOT_RECOGNISED", "colour"),
        ]
        with pytest.raises(Invalid) as refused:
            await apps.configure(op, SIMULATOR, {"colour": "red"})
        assert refused.value.code == "SETTING_NOT_RECOGNISED"
        assert (await apps.get_settings(op, SEPA)) == {}


async def test_an_app_stays_while_any_draft_names_it(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SIMULATOR)
        scheme = await schemes.create_scheme(op, "payout", draft())
        with pytest.raises(Conflict) as refused:
            await apps.uninstall(op, SIMULATOR)
        assert refused.value.code == "APP_IN_USE"
        await schemes.delete_scheme(op, "payout", scheme.scheme_id)
        await apps.uninstall(op, SIMULATOR)
        assert await apps.list_installed(op) == []
        with pytest.raises(NotFound):
            await apps.get_settings(op, SIMULATOR)
    assert (await world.actions("app."))[-1] == ("app.uninstall", SIMULATOR, "")


@pytest.mark.parametrize(("status", "stays"), [("INTENDED", True), ("UNCONFIRMED", True), ("FAILED", False)])
async def test_an_app_stays_while_a_payment_is_with_it(world: World, status: str, stays: bool) -> None:
    async with world.operation() as op:
        scheme_id = await publish_scheme(op)
        [instrument] = await add_many(op, [("c", bank_account())])
        await instruct(op, "o", "c", scheme_id, instrument)
        await apps.install(op, SEPA)
        await op.run(
            "insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status, sealed, "
            "created_at, updated_at) select tenant_id, gen_random_uuid(), order_id, instruction_id, %s, %s, '', %s, %s "
            "from instructions",
            SEPA,
            status,
            op.now,
            op.now,
        )
        if stays:
            with pytest.raises(Conflict) as refused:
                await apps.uninstall(op, SEPA)
            assert refused.value.code == "APP_IN_USE"
            assert "payments" in str(refused.value)
        else:
            await apps.uninstall(op, SEPA)
        assert (SEPA in await apps.find_installed_ids(op)) is stays


async def test_a_draft_and_an_uninstall_cannot_pass_each_other(world: World) -> None:
    async with world.operation() as op:
        await apps.install(op, SIMULATOR)

    async def uninstall() -> None:
        async with world.operation() as op:
            await apps.uninstall(op, SIMULATOR)

    async with world.operation() as op:
        await schemes.create_scheme(op, "payout", draft())
        uninstalling = asyncio.create_task(uninstall())
        await asyncio.sleep(0.2)
        assert not uninstalling.done()
    with pytest.raises(Conflict) as refused:
        await uninstalling
    assert refused.value.code == "APP_IN_USE"


@pytest.mark.parametrize(
    ("ask", "role"),
    [
        (apps.list_installed, "tenant-app-read"),
        (lambda op: apps.get_installed(op, SIMULATOR), "tenant-app-read"),
        (lambda op: apps.configure(op, SIMULATOR, {}), "tenant-app-write"),
        (lambda op: apps.uninstall(op, SIMULATOR), "tenant-app-write"),
        (lambda op: apps.install(op, SEPA), "tenant-app-write"),
    ],
)
async def test_every_function_asks_for_its_permission(
    world: World, ask: Callable[[Operation], Awaitable[object]], role: str
) -> None:
    async with world.operation() as op:
        await apps.install(op, SIMULATOR)
    lesser = "tenant-app-read" if role.endswith("write") else "tenant-payout-scheme-write"
    async with world.operation(lesser) as op:
        with pytest.raises(Forbidden):
            await ask(op)
    async with world.operation(role) as op:
        await ask(op)


async def test_tenants_do_not_see_each_others_apps(world: World, platform: Platform) -> None:
    other = World.of(platform.app, await platform.new_tenant())
    async with world.operation() as op:
        await apps.install(op, SEPA)
        await apps.configure(op, SEPA, SETTINGS)
    async with other.operation() as op:
        assert await apps.list_installed(op) == []
        for ask in (apps.get_installed, apps.get_settings, apps.uninstall):
            with pytest.raises(NotFound):
                await ask(op, SEPA)
        await apps.install(op, SEPA)
        assert await apps.get_settings(op, SEPA) == {}
    async with world.operation() as op:
        assert await apps.get_settings(op, SEPA) == SETTINGS

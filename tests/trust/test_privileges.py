"""ACC-4 turns red for a role that reaches beyond the matrix, a route that asks for nothing, and roles that linger."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from strongroom import access
from strongroom.access import Permission, decision, policies
from strongroom.assembly import Installation
from strongroom.cli.workbenches import served_here
from strongroom.database import Databases
from strongroom.kernel.actors import Actor
from strongroom.trust import Workbench
from strongroom.trust.checks.privileges import check_privileges


@pytest.fixture
def forgetful() -> Iterator[None]:
    """Policies and decisions are read and made anew, and afterwards again."""
    caches = (policies.built_in, policies._read, policies.with_custom, decision._decided, decision.permissions_of)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


async def test_what_is_served_is_green(bench: Workbench) -> None:
    figure = await check_privileges(bench)
    assert figure.breaches == ()
    assert figure.text.startswith("28 roles asked for all of 29 permissions")


async def test_a_policy_that_allows_more_is_red(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, forgetful: None
) -> None:
    real = policies._text

    def weakened(name: str) -> str:
        head, found, tail = real(name).partition('@id("tenant-app-read")')
        more = 'Strongroom::Action::"apps:read", Strongroom::Action::"tenant-keys:manage"'
        return head + found + tail.replace('Strongroom::Action::"apps:read"', more, 1)

    monkeypatch.setattr(policies, "_text", weakened)
    figure = await check_privileges(bench)
    assert figure.breaches
    assert all(breach.endswith("to the role tenant-app-read") for breach in figure.breaches)


async def test_a_route_without_a_permission_is_red(bench: Workbench) -> None:
    endpoints = [
        dataclasses.replace(endpoint, permission="") if str(endpoint) == "GET /v1/alerts" else endpoint
        for endpoint in bench.endpoints
    ]
    figure = await check_privileges(dataclasses.replace(bench, endpoints=endpoints))
    assert figure.breaches == ("GET /v1/alerts declares no permission that there is",)


async def test_roles_that_are_remembered_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered: dict[frozenset[str], Actor] = {}

    async def remembering(databases: Databases, actor: Actor) -> Actor:
        return remembered.setdefault(actor.roles, await access.with_own_roles(databases, actor))

    monkeypatch.setattr("strongroom.api.surface.with_own_roles", remembering)
    async with served_here(Installation(bench.config)) as lingering:
        figure = await check_privileges(lingering)
    assert any(breach.endswith("to a role that has ended") for breach in figure.breaches)


async def test_denials_that_dont_win_are_red(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strongroom.api.surface.require_held", lambda *_: None)
    real = decision._asked

    def lenient(actor: Actor, permission: Permission, situation: decision.Situation) -> policies.Verdict:
        bare = dataclasses.replace(actor, custom_roles=())
        kept = decision._kept(bare, permission, decision._own_place(bare))
        return kept if kept.allowed else real(actor, permission, situation)

    monkeypatch.setattr(decision, "_asked", lenient)
    async with served_here(Installation(bench.config)) as house:
        figure = await check_privileges(house)
    assert any(breach.endswith("beside one that denies it") for breach in figure.breaches)

"""A process that may ask providers and the DNS of the test's making."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator

import pytest

from strongroom.assembly import Installation
from strongroom.cli.supervisor import choose_port
from strongroom.cli.workbenches import listening
from tests.fixtures.platform import Platform, opened
from tests.people.single_sign_on.made import MadeProvider, NameServer, Scene, new_scene


@pytest.fixture(scope="module")
async def names() -> AsyncIterator[NameServer]:
    """A name server on the loopback interface."""
    server = NameServer()
    await server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
async def provider(installation: Installation) -> AsyncIterator[MadeProvider]:
    """An OpenID provider of the test's making, over TLS."""
    port = choose_port("127.0.0.1", 0)
    made = MadeProvider(f"https://127.0.0.1:{port}")
    async with listening(made, port, installation.certificate()):
        yield made


@pytest.fixture(scope="module")
async def door(installation: Installation, provider: MadeProvider, names: NameServer) -> AsyncIterator[Platform]:
    """A process of the common installation that believes the test's provider and name server."""
    config = dataclasses.replace(
        installation.config,
        internal_providers=(provider.issuer.removeprefix("https://"),),
        providers_ca=installation.ca_file,
        name_servers=(names.place,),
    )
    async with opened(Installation(config)) as platform:
        yield platform


@pytest.fixture
async def scene(door: Platform, provider: MadeProvider, names: NameServer) -> Scene:
    """An account with a verified domain, whose provider is the test's."""
    return await new_scene(door, provider, names)

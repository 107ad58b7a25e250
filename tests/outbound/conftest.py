"""Certificates for the servers that the client is tried against."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from tests.certificates import Authority


@pytest.fixture(scope="session", params=[True, False], ids=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    """Both event loops that the client is used on."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "Stranger")


@pytest.fixture(scope="session")
def tls(authority: Authority) -> ssl.SSLContext:
    """The server's side of TLS for localhost, 127.0.0.1 and provider.example."""
    return authority.issue("localhost", "127.0.0.1", "provider.example").server_context()


@pytest.fixture(scope="session")
def trust(authority: Authority) -> Path:
    return authority.ca

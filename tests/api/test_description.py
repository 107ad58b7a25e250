"""The running server keeps to its own description, whatever is sent to it (schemathesis, over TLS).

Bodies, queries and headers are made from docs/openapi.json: some that it allows, some that it doesn't. Ids in paths are
now and then those of things that are there, so that requests get further than to "not found".
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.api.paying import ORDERS, instruction, make_account, make_order, make_scheme
from tests.fixtures.platform import Client, Server
from tests.guards.tree import ROOT

SEED = 20261122
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
DOCUMENT = json.loads((ROOT / "docs" / "openapi.json").read_text("utf-8"))
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SHORT, LONG = 10, 240
"""Cases of each operation: about a thousand altogether, and more than twenty thousand."""


class World:
    """An account and a tenant with a bit of everything; tokens are renewed when asked."""

    def __init__(self, server: Server) -> None:
        self._server = server
        made = server.run("accounts", "create", "--name", "Alpine Mutual", "--json").stdout
        self._opened = json.loads(made)
        self.paths: dict[str, str] = {}
        self._keys: dict[str, Client] = {}
        self.headers: dict[str, dict[str, str]] = {}
        asyncio.run(self._fill())

    def renew(self) -> None:
        """Fresh tokens: they live for a quarter of an hour."""
        asyncio.run(self._renew())

    def _http(self) -> httpx.AsyncClient:
        context = ssl.create_default_context(cafile=self._server.ca_file)
        return httpx.AsyncClient(base_url=self._server.url, verify=context, timeout=30)

    async def _fill(self) -> None:
        opened = self._opened
        async with self._http() as http:
            account = Client(
                http=http,
                account_id=opened["accountId"],
                public_key=opened["publicKey"],
                private_key=opened["privateKey"],
            )
            tenant, other = await account.new_tenant(), await account.new_tenant(name="Premiums")
            scheme = await make_scheme(tenant)
            instrument = await make_account(tenant)
            ready = instruction(schemeId=scheme, financialInstrumentId=instrument, metadata={"a": "b"})
            await make_order(tenant, "o-1", ready, customerDefaults={"c-1": {"schemeId": scheme}})
            drafts = (await tenant.get(f"/v1/schemes/payout/{scheme}/drafts")).json()["drafts"]
            line = json.dumps({"orderRef": "o-2", **ready}).encode()
            job = await tenant.post(f"{ORDERS}/bulk", content=line, headers={"content-type": "application/x-ndjson"})
            spare = await tenant.new_key("tenant-transaction-read")
            self._keys = {"account": account, "tenant": tenant}
            self.paths = {
                "orderRef": "o-1",
                "instructionRef": "i-1",
                "customerRef": "c-1",
                "id": instrument,
                "financialInstrumentId": instrument,
                "schemeId": scheme,
                "draftId": drafts[0]["draftId"],
                "jobId": job.json()["jobId"],
                "publicKey": spare.public_key,
                "tenantId": str(other.tenant_id),
                "appId": "simulator",
            }
        await self._renew()

    async def _renew(self) -> None:
        async with self._http() as http:
            for level, client in self._keys.items():
                client.http = http
                assert (await client.sign_in()).status_code == 201
                self.headers[level] = client.headers


@pytest.fixture(scope="module")
def world(server: Server) -> World:
    return World(server)


@pytest.fixture(scope="module")
def session(server: Server) -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False  # the machine's proxies and authorities are no part of this
        made.verify = str(server.ca_file)
        yield made


def operations() -> list[Any]:
    found = [result.ok() for result in SCHEMA.get_all_operations()]
    return [pytest.param(operation, id=operation.label) for operation in found]


def attack(operation: Any, world: World, session: requests.Session, url: str, cases: int) -> int:
    """Send so many cases of an operation, half of them wrong on purpose, and judge the answers; how many were sent."""
    names = {parameter["name"] for parameter in operation.definition.raw.get("parameters", [])}
    level = "tenant" if "x-tenant-id" in names else "account" if "x-account-id" in names else ""
    sent = 0

    def send(case: Case, there: bool) -> None:
        nonlocal sent
        if there and isinstance(case.path_parameters, dict):
            case.path_parameters.update(
                {name: value for name, value in world.paths.items() if name in case.path_parameters}
            )
        response = case.call(base_url=url, session=session, headers=world.headers.get(level, {}), verify=session.verify)
        sent += 1
        case.validate_response(response, checks=CHECKS)

    # Where any text is allowed and nothing else is asked for, nothing can be wrong.
    modes = list(GenerationMode) if level or len(operation.body) else [GenerationMode.POSITIVE]
    for mode in modes:
        given_cases = given(case=operation.as_strategy(generation_mode=mode), there=st.booleans())(send)
        campaign: Callable[[], None] = settings(
            max_examples=cases // len(modes),
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )(seed(SEED)(given_cases))
        campaign()
    return sent


@pytest.mark.parametrize("operation", operations())
def test_answers_are_as_described(operation: Any, world: World, session: requests.Session, server: Server) -> None:
    assert attack(operation, world, session, server.url, SHORT) >= 2


@pytest.mark.soak
def test_answers_are_as_described_in_twenty_thousand_cases(
    world: World, session: requests.Session, server: Server
) -> None:
    sent = 0
    for result in SCHEMA.get_all_operations():
        world.renew()
        sent += attack(result.ok(), world, session, server.url, LONG)
    assert sent >= 20_000


def test_the_checks_find_what_is_wrong(world: World, session: requests.Session, server: Server) -> None:
    """The same attack on a description that says something else."""
    wrong = json.loads(json.dumps(DOCUMENT))
    answers = wrong["paths"]["/health"]["get"]["responses"]["200"]["content"]["application/json"]
    answers["schema"] = {"type": "object", "required": ["nothing"]}
    wrong["paths"]["/ready"]["get"]["responses"] = {"204": {"description": "Nothing."}}
    for path in ("/health", "/ready"):
        with pytest.raises(FailureGroup):
            attack(schemathesis.openapi.from_dict(wrong)[path]["GET"], world, session, server.url, 2)

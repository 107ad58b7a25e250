"""The description of the API is checked in, true to the route table, and one that others can read."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from strongroom.api import openapi
from strongroom.api.routing import Access
from strongroom.api.table import ROUTES
from tests.guards.golden import differences
from tests.guards.tree import ROOT

DOCUMENT: dict[str, Any] = json.loads(openapi.render(ROUTES))
OPERATIONS = [
    pytest.param(operation, id=operation["operationId"])
    for methods in DOCUMENT["paths"].values()
    for operation in methods.values()
]


def test_the_description_is_the_one_checked_in() -> None:
    assert not (text := differences(ROOT / "docs" / "openapi.json", openapi.render(ROUTES).decode())), text


def test_every_route_is_described_once() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert described == {(route.method, route.path) for route in ROUTES}
    assert len(ROUTES) == len(described)
    ids = [param.id for param in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(DOCUMENT)
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', text))
    assert references
    for reference in references:
        place: Any = DOCUMENT
        for name in reference.split("/"):
            assert name in place, reference
            place = place[name]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_an_operation_says(operation: dict[str, Any]) -> None:
    assert operation["summary"]
    names = [(parameter["in"], parameter["name"]) for parameter in operation["parameters"]]
    assert len(set(names)) == len(names)
    guarded = operation["security"] != []
    statuses = set(operation["responses"])
    assert {"400", "503"} <= statuses
    assert ({"401", "403"} <= statuses) or not guarded
    assert guarded == (("header", "x-account-id") in names)


def test_public_routes_ask_for_no_token() -> None:
    for route in ROUTES:
        operation = DOCUMENT["paths"][route.path][route.method.lower()]
        assert (operation["security"] == []) == (route.access is Access.PUBLIC)
        assert operation.get("x-permission") == (route.permission.value if route.permission else None)


def test_others_can_read_it() -> None:
    """schemathesis validates the document, and finds every operation in it."""
    import schemathesis

    schema = schemathesis.openapi.from_dict(DOCUMENT)
    schema.validate()
    found = [result.ok() for result in schema.get_all_operations()]
    assert len(found) == len(ROUTES)

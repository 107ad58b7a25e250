"""The policies: Cedar text in `policies/`, what accounts' own roles come to, and the engine's answer.

`policies/*.cedar` are checked against `policies/schema.cedarschema` when they are first read; a process whose policies
don't hold together answers nobody. Every policy has an `@id`, which explanations name.

A decision by the engine takes about a third of a millisecond, most of it for telling it who asks. What built-in roles
allow depends on nothing but the roles, so their decisions are made once and kept (`strongroom.access.decision`).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Final

import cedarpy

from strongroom.access.rendering import Json, conditions_of, rendered, uid
from strongroom.kernel.custom_roles import CustomRole
from strongroom.kernel.errors import Broken, Failure

MAX_PARSED: Final = 2_000
"""Most combinations of accounts' own roles whose policies a process keeps parsed."""
_FOLDER: Final = files("strongroom.access") / "policies"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The engine's answer; `by` are the ids of the policies that decided. Refused by none: nothing permits it."""

    allowed: bool
    by: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, as policies see it; `account` and `tenant` are what it acts for. Processes act for nobody."""

    kind: str
    name: str
    account: str | None = None
    tenant: str | None = None
    roles: Collection[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What it is asked of: an account, or a tenant of it."""

    account: str
    tenant: str | None = None


NOWHERE: Final = Place(account="")
"""What belongs to no account."""


def ask(
    policies: cedarpy.PolicySet,
    principal: Principal,
    action: str,
    place: Place,
    circumstances: Mapping[str, object],
) -> Verdict:
    """The engine's verdict. An error in a policy counts as a refusal, and is told.

    Raises errors.Broken (`POLICY_FAILED`).
    """
    here = uid("Account", place.account) if place.tenant is None else uid("Tenant", place.tenant)
    request = {
        "principal": uid(principal.kind, principal.name),
        "action": uid("Action", action),
        "resource": here,
        "context": dict(circumstances),
    }
    answer = cedarpy.is_authorized(request, policies, json.dumps(_entities(principal, place)))
    if answer.diagnostics.errors:
        raise Broken(
            Failure(
                "POLICY_FAILED",
                "The policies couldn't be asked about {permission}: {error}",
                {"permission": action, "error": answer.diagnostics.errors[0]},
            )
        )
    return Verdict(allowed=answer.allowed, by=tuple(sorted(answer.diagnostics.reasons)))


def _entities(principal: Principal, place: Place) -> Sequence[Json]:
    attributes: Json = {}
    if principal.account is not None:
        attributes["account"] = {"__entity": uid("Account", principal.account)}
    if principal.tenant is not None:
        attributes["tenant"] = {"__entity": uid("Tenant", principal.tenant)}
    parents = [uid("Role", role) for role in sorted(principal.roles)]
    entities = [{"uid": uid(principal.kind, principal.name), "attrs": attributes, "parents": parents}]
    if place.tenant is not None:
        entities.append({"uid": uid("Tenant", place.tenant), "attrs": {}, "parents": [uid("Account", place.account)]})
    return entities


@cache
def built_in() -> cedarpy.PolicySet:
    """The policies of this release. Raises errors.Broken (`POLICIES_INVALID`) when they don't fit the schema."""
    return _parsed(_built_in_json())


@lru_cache(maxsize=MAX_PARSED)
def with_custom(roles: tuple[CustomRole, ...]) -> cedarpy.PolicySet:
    """The policies of this release together with those that these roles come to."""
    more = {name: policy for role in roles for name, policy in rendered(role).items()}
    return _parsed({**_built_in_json(), **more})


@lru_cache(maxsize=MAX_PARSED)
def conditions_alone(role: CustomRole) -> cedarpy.PolicySet:
    """A role's conditions, each a policy of its own: the verdict's `by` are those that hold."""
    return _parsed(conditions_of(role))


@cache
def roles_of_level(level: str) -> frozenset[str]:
    """The built-in roles that policies name, of `account` or `tenant`."""
    return frozenset(_ids(_text(f"{level}_roles.cedar")))


def check_text(text: str) -> Sequence[str]:
    """What is wrong with policy text, by the schema; nothing when it is right."""
    return [str(error) for error in cedarpy.validate_policies(text, _text("schema.cedarschema")).errors]


def check_rendered(role: CustomRole) -> Sequence[str]:
    """What is wrong with what a role comes to, by the schema; nothing when it is right."""
    return check_text(cedarpy.policies_from_json_str(json.dumps(_document(rendered(role)))))


def _built_in_json() -> Mapping[str, Json]:
    return _read("places.cedar", "account_roles.cedar", "tenant_roles.cedar")


@cache
def _read(*names: str) -> Mapping[str, Json]:
    policies: dict[str, Json] = {}
    for name in names:
        text = _text(name)
        if errors := check_text(text):
            raise Broken(
                Failure(
                    "POLICIES_INVALID", "{file} doesn't fit the schema: {error}", {"file": name, "error": errors[0]}
                )
            )
        for identifier, policy in _ids(text).items():
            if identifier in policies:
                raise Broken(
                    Failure(
                        "POLICIES_INVALID", "Two policies have the id {id}: {file}.", {"id": identifier, "file": name}
                    )
                )
            policies[identifier] = policy
    return policies


def _invalid(name: str, reason: str) -> Broken:
    values = {"file": name, "reason": reason}
    return Broken(Failure("POLICIES_INVALID", "The policies in {file} can't be used: {reason}.", values))


def _ids(text: str) -> Mapping[str, Json]:
    found: list[Json] = list(json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"].values())
    return {policy["annotations"]["id"]: policy for policy in found}


def _parsed(policies: Mapping[str, Json]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_json_str(json.dumps(_document(policies)))


def _document(policies: Mapping[str, Json]) -> dict[str, Any]:
    return {"staticPolicies": dict(policies), "templates": {}, "templateLinks": []}


def _text(name: str) -> str:
    return (_FOLDER / name).read_text("utf-8")

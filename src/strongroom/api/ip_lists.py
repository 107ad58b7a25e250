"""From where an account and a tenant may be reached: reading and setting their IP lists."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from strongroom.access import Permission
from strongroom.api.reading import Collector, Object, read_object
from strongroom.api.routing import Access, Call, Reply, Route
from strongroom.database import Operation
from strongroom.identity.ip_lists import INTERFACES, MAX_RULES, IpRules, Rule, get_ip_rules, set_ip_rules
from strongroom.kernel.networks import AddressRange, parse_address, parse_network

MAX_NAME: Final = 100
_MAX_TEXT: Final = 64


class IpRuleBody(msgspec.Struct, rename="camel"):
    """A range of addresses, both ends included: IPv4 by its ends, either version as a network in `cidr`."""

    name: str
    ip_v4_start: str | None = msgspec.field(name="ipV4Start", default=None)
    ip_v4_end: str | None = msgspec.field(name="ipV4End", default=None)
    cidr: str | None = None
    interfaces: list[str] = msgspec.field(default_factory=lambda: list(INTERFACES))


class IpListBody(msgspec.Struct, rename="camel"):
    """An IP list; null in `lastUpdated`: it was never set. While it isn't enabled, any address will do."""

    enabled: bool
    last_updated: datetime | None
    rules: list[IpRuleBody]


class IpListRequest(msgspec.Struct, rename="camel"):
    """The list to be. A rule has `ipV4Start` and `ipV4End`, or `cidr`; `interfaces` are `api` and `portal`."""

    enabled: bool
    rules: list[IpRuleBody] = msgspec.field(default_factory=list)


async def _get(op: Operation, _: Call) -> Reply:
    return Reply(200, _body(await get_ip_rules(op)))


async def _put(op: Operation, call: Call) -> Reply:
    source, found = read_object(call.body), Collector()
    enabled = found.flag(source, "enabled", "ENABLED")
    if source.get("enabled") is None:
        found.required("enabled", "ENABLED")
    rules = _read_rules(found, source)
    if enabled and not rules and not found.failures:
        found.add("RULES_IS_REQUIRED", "A list that is enabled and has no rules would shut everybody out.")
    forced = found.choice(call.query, "force", "FORCE", ("true", "false"), required=False) == "true"
    found.check()
    await set_ip_rules(op, call.services.databases, is_enabled=bool(enabled), rules=rules, forced=forced)
    return Reply(204)


def _read_rules(found: Collector, source: Object) -> list[Rule]:
    given = source.get("rules")
    if given is None:
        return []
    if not isinstance(given, list) or not all(isinstance(item, dict) for item in given):
        found.add("RULES_IS_INVALID", "{field} must be a list of objects.", field="rules")
        return []
    if len(given) > MAX_RULES:
        found.add("RULES_LIMIT_REACHED", "A list has at most {limit} rules.", limit=MAX_RULES)
        return []
    return [rule for item in given if (rule := _read_rule(found, item)) is not None]


def _read_rule(found: Collector, source: Object) -> Rule | None:
    name = found.text(source, "name", "NAME", max_length=MAX_NAME)
    interfaces = (
        INTERFACES
        if source.get("interfaces") is None
        else found.choices(source, "interfaces", "INTERFACES", INTERFACES)
    )
    if source.get("cidr") is not None:
        cidr = found.text(source, "cidr", "CIDR", max_length=_MAX_TEXT)
        network = parse_network(cidr)
        if cidr and network is None:
            found.add(
                "CIDR_IS_INVALID",
                "{cidr} is not a network, such as 203.0.113.0/24 or 2001:db8::/32. Behind the prefix, all bits are 0.",
                cidr=cidr,
            )
        if network is None:
            return None
        return Rule(name=name, first=str(network[0]), last=str(network[-1]), cidr=str(network), interfaces=interfaces)
    first = _read_ipv4(found, source, "ipV4Start", "IP_V4_START")
    last = _read_ipv4(found, source, "ipV4End", "IP_V4_END")
    if not first or not last:
        return None
    try:
        AddressRange.parse(f"{first}-{last}")
    except ValueError:
        found.add(
            "IP_V4_END_OUT_OF_RANGE",
            "A range ends where it begins, or after: {first} to {last}.",
            first=first,
            last=last,
        )
        return None
    return Rule(name=name, first=first, last=last, interfaces=interfaces)


def _read_ipv4(found: Collector, source: Object, field: str, code: str) -> str:
    text = found.text(source, field, code, max_length=_MAX_TEXT)
    address = parse_address(text) if text else None
    if text and (address is None or address.version != 4):
        found.add(f"{code}_IS_INVALID", "{field} must be an IPv4 address, such as 203.0.113.7.", field=field)
        return ""
    return "" if address is None else str(address)


def _body(rules: IpRules) -> IpListBody:
    return IpListBody(
        enabled=rules.is_enabled,
        last_updated=rules.updated_at,
        rules=[
            IpRuleBody(name=rule.name, cidr=rule.cidr, interfaces=list(rule.interfaces))
            if rule.cidr
            else IpRuleBody(
                name=rule.name, ip_v4_start=rule.first, ip_v4_end=rule.last, interfaces=list(rule.interfaces)
            )
            for rule in rules.rules
        ],
    )


def _routes(access: Access) -> Sequence[Route]:
    path = f"/v1/{access.value}/ip-whitelist"
    return (
        Route(
            method="GET",
            path=path,
            summary=f"From where the {access.value} may be reached",
            tag="IP lists",
            access=access,
            permission=Permission.IP_LIST_MANAGE,
            operation=_get,
            replies={200: IpListBody},
        ),
        Route(
            method="PUT",
            path=path,
            summary=f"Say from where the {access.value} may be reached",
            tag="IP lists",
            access=access,
            permission=Permission.IP_LIST_MANAGE,
            operation=_put,
            request=IpListRequest,
            replies={204: None},
            query={"force": "`true`: also if the list shuts out who sends it."},
        ),
    )


ROUTES: Final[Sequence[Route]] = (*_routes(Access.ACCOUNT), *_routes(Access.TENANT))

"""IP lists: from where an account's or a tenant's keys and people may come (promise ACC-3).

Each level has a list of its own: an account's holds for what acts for the account, a tenant's for what acts for the
tenant. What a list says is sealed with its names; the ranges that it enforces stand beside it for every operation to
check (`strongroom.database.ip_lists`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import msgspec

from strongroom.access import Permission, require
from strongroom.audit import record
from strongroom.database import Databases, IpList, Operation
from strongroom.kernel.actors import Actor
from strongroom.kernel.errors import Conflict, Failure
from strongroom.kernel.networks import AddressRange

MAX_RULES: Final = 500
"""Most rules of a list."""
INTERFACES: Final = ("api", "portal")
"""What a rule can hold for: API keys, and people in the portals."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """A range that may be come from, `first` to `last`, both included; `cidr` is how it was written, if it was so."""

    name: str
    first: str
    last: str
    cidr: str = ""
    interfaces: tuple[str, ...] = INTERFACES

    @property
    def range(self) -> AddressRange:
        """The addresses."""
        return AddressRange.parse(f"{self.first}-{self.last}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpRules:
    """A list as it was set. `updated_at` is None before it was for the first time."""

    is_enabled: bool = False
    rules: tuple[Rule, ...] = ()
    updated_at: datetime | None = None

    def enforced(self) -> IpList:
        """What it comes to."""
        return IpList.of(*self.ranges())

    def ranges(self) -> tuple[list[str] | None, list[str] | None]:
        """For the API and for the portals: ranges as texts, or None for anywhere."""
        if not self.is_enabled:
            return None, None
        api, portal = ([str(rule.range) for rule in self.rules if name in rule.interfaces] for name in INTERFACES)
        return api, portal


async def get_ip_rules(op: Operation) -> IpRules:
    """The list of the operation's tenant (or account).

    Raises errors.Forbidden (`FORBIDDEN`).
    """
    require(op, Permission.IP_LIST_MANAGE)
    return await _read(op)


async def set_ip_rules(
    op: Operation, databases: Databases, *, is_enabled: bool, rules: Sequence[Rule], forced: bool
) -> IpRules:
    """Replace the list of the operation's tenant (or account). It holds from the next operation of every process on.

    `forced`: also if it shuts out who sets it. An account's list counts a moment before this operation commits, in the
    directory; should the commit fail, set it again.

    Raises errors.Forbidden (`FORBIDDEN`) and errors.Conflict (`WOULD_LOCK_YOU_OUT`).
    """
    require(op, Permission.IP_LIST_MANAGE)
    made = IpRules(is_enabled=is_enabled, rules=tuple(rules), updated_at=op.now)
    if not forced and not made.enforced().allows(op.actor):
        raise Conflict(
            Failure(
                "WOULD_LOCK_YOU_OUT",
                "The list lacks {address}, from where this request comes: you could not change it again. Add the "
                "address, or send force=true if you mean it.",
                {"address": str(op.actor.source)},
            )
        )
    before = await _read(op)
    api, portal = made.ranges()
    await op.run(
        "insert into ip_lists (scope_id, is_enabled, api, portal, sealed, updated_at) values (%s, %s, %s, %s, %s, %s) "
        "on conflict (scope_id) do update set is_enabled = excluded.is_enabled, api = excluded.api, "
        "portal = excluded.portal, sealed = excluded.sealed, updated_at = excluded.updated_at",
        op.scope,
        is_enabled,
        api,
        portal,
        op.cipher.seal("ip_lists", "sealed", op.scope.bytes, msgspec.msgpack.encode(made.rules)),
        op.now,
    )
    detail = f"{_told(before)} -> {_told(made)}" + (" forced" if forced else "")
    await record(op, "ip-list.update", "ip-list", op.scope, detail=detail)
    if op.tenant_id is None:
        async with databases.directory() as directory:
            await directory.execute(
                "insert into account_networks (account_id, api, portal) values (%s, %s, %s) "
                "on conflict (account_id) do update set api = excluded.api, portal = excluded.portal",
                (op.account, api, portal),
            )
    return made


async def check_source(op: Operation, actor: Actor) -> None:
    """Raises errors.Forbidden (`ADDRESS_NOT_ALLOWED`) unless the actor may come to the operation's tenant from there.

    For sign-in, which acts before anybody is signed in; afterwards every operation checks by itself.
    """
    row = await op.row("select api, portal from ip_lists where scope_id = %s", op.scope)
    if row is not None:
        IpList.of(*row).check(actor)


async def _read(op: Operation) -> IpRules:
    row = await op.row("select is_enabled, sealed, updated_at from ip_lists where scope_id = %s", op.scope)
    if row is None:
        return IpRules()
    rules = _DECODER.decode(op.cipher.open("ip_lists", "sealed", op.scope.bytes, row[1]))
    return IpRules(is_enabled=row[0], rules=rules, updated_at=row[2])


def _told(rules: IpRules) -> str:
    return f"{'on' if rules.is_enabled else 'off'} {len(rules.rules)} rules"


_DECODER: Final = msgspec.msgpack.Decoder(tuple[Rule, ...])

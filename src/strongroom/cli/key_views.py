"""Keys as the command line shows them: as data, and as tables for people. Never a value of a key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from strongroom.vault import DataKey, Keys, Scope, ScopeKey, Verified, Work


def scope_as_data(scope: Scope) -> dict[str, str | None]:
    """Whose keys."""
    return {"accountId": str(scope.account), "tenantId": None if scope.tenant is None else str(scope.tenant)}


def scope_name(scope: Scope) -> str:
    """Whose keys, in words."""
    return f"account {scope.account}" if scope.tenant is None else f"tenant {scope.tenant}"


def scope_key_as_data(key: ScopeKey) -> dict[str, Any]:
    """A version of a scope key."""
    return {
        "layer": key.layer.value,
        "version": key.version,
        "state": key.state.value,
        "source": key.source.value,
        "holder": key.holder,
        "reference": key.reference,
        "createdOn": key.created_at.isoformat(),
        "changedOn": key.changed_at.isoformat(),
        "expiresOn": key.expires_at.isoformat(),
        "destroyAskedBy": key.destroy_asked_by,
        "destroyApprovedBy": key.destroy_approved_by,
        "destroyAfter": None if key.destroy_after is None else key.destroy_after.isoformat(),
    }


def data_key_as_data(key: DataKey) -> dict[str, Any]:
    """A version of a data key."""
    return {
        "layer": key.layer.value,
        "purpose": key.purpose,
        "version": key.version,
        "state": key.state.value,
        "scopeKeyVersion": key.scope_key_version,
        "createdOn": key.created_at.isoformat(),
        "expiresOn": None if key.expires_at is None else key.expires_at.isoformat(),
    }


def work_as_data(work: Work) -> dict[str, Any]:
    """A rotation."""
    return {
        "rotationId": str(work.work_id),
        "kind": work.kind,
        "layer": work.layer.value,
        "version": work.version,
        "status": "DONE" if work.is_done else "RUNNING",
        "passes": work.passes,
        "seen": work.seen,
        "done": work.done,
        "startedOn": work.started_at.isoformat(),
        "updatedOn": work.updated_at.isoformat(),
    }


def keys_as_data(scope: Scope, keys: Keys, rotations: Sequence[Work]) -> dict[str, Any]:
    """All of a scope."""
    return {
        **scope_as_data(scope),
        "scopeKeys": [scope_key_as_data(key) for key in keys.scope_keys],
        "dataKeys": [data_key_as_data(key) for key in keys.data_keys],
        "rotations": [work_as_data(work) for work in rotations],
    }


def verified_as_data(scope: Scope, verified: Verified) -> dict[str, Any]:
    """What was found in a scope."""
    findings = [
        {"table": found.table, "column": found.column, "row": found.row, "code": found.code}
        for found in verified.findings
    ]
    return {
        **scope_as_data(scope),
        "opened": verified.opened,
        "away": verified.away,
        "lost": verified.lost,
        "broken": findings,
    }


def overview_table(rows: Sequence[tuple[Scope, Keys, Work | None]], now: datetime) -> Table:
    """One line for each scope: its customer's key (an account's: the platform's), and what is due or under way."""
    from strongroom.vault import Layer

    table = _table("Whose", "Key", "Version", "State", "Rotate by", "Under way")
    for scope, keys, work in rows:
        key = keys.current(Layer.PLATFORM if scope.tenant is None else Layer.CUSTOMER)
        if key is None:
            table.add_row(scope_name(scope), "none yet", "", "", "", "")
            continue
        table.add_row(
            scope_name(scope),
            f"{key.layer.value}, {key.source.value} in {key.holder}",
            str(key.version),
            key.state.value,
            _rotate_by(key, now),
            _destruction(key) or ("" if work is None else f"{work.kind}, {work.done} done"),
        )
    return table


def scope_keys_table(keys: Sequence[ScopeKey], now: datetime) -> Table:
    """Scope keys, a line each."""
    table = _table("Scope key", "Version", "State", "Source", "Held in", "Rotate by", "Destruction")
    for key in keys:
        held = f"{key.holder}: {key.reference}" if key.source == "held" else key.holder
        table.add_row(
            key.layer.value,
            str(key.version),
            key.state.value,
            key.source.value,
            held,
            _rotate_by(key, now),
            _destruction(key),
        )
    return table


def data_keys_table(keys: Sequence[DataKey], now: datetime) -> Table:
    """Data keys, a line each."""
    table = _table("Data key", "Purpose", "Version", "State", "Wrapped by", "Rotate by")
    for key in keys:
        wrapped_by = "the root key" if key.scope_key_version is None else f"version {key.scope_key_version}"
        table.add_row(key.layer.value, key.purpose, str(key.version), key.state.value, wrapped_by, _rotate_by(key, now))
    return table


def rotations_table(rotations: Sequence[Work]) -> Table:
    """Rotations, a line each."""
    table = _table("Rotation", "Layer", "To version", "Status", "Changed", "Begun", "Last seen")
    for work in rotations:
        table.add_row(
            work.kind,
            work.layer.value,
            str(work.version),
            "done" if work.is_done else "running",
            f"{work.done:,}",
            f"{work.started_at:%Y-%m-%d %H:%M}",
            f"{work.updated_at:%Y-%m-%d %H:%M}",
        )
    return table


def describe_counts(counts: Mapping[str, int]) -> str:
    """How many fields of which tables, in words."""
    named = ", ".join(f"{count:,} in {table}" for table, count in counts.items())
    return f"{sum(counts.values()):,} fields ({named})" if counts else "no field"


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _rotate_by(key: ScopeKey | DataKey, now: datetime) -> str:
    """The end of a key's cryptoperiod, and when that is over, who has to see to it."""
    from strongroom.vault import ScopeKey, is_over

    if key.state != "ACTIVE" or key.expires_at is None:
        return ""
    day = f"{key.expires_at:%Y-%m-%d}"
    if not is_over(key, now):
        return day
    is_theirs = isinstance(key, ScopeKey) and key.source != "kept"
    return f"[red]{day} (over: its owner has to replace it)[/]" if is_theirs else f"[red]{day} (due)[/]"


def _destruction(key: ScopeKey) -> str:
    if key.destroy_asked_by is None or key.state == "DESTROYED":
        return ""
    if key.destroy_after is None:
        return "to be destroyed: waits for a second person"
    return f"to be destroyed on {key.destroy_after:%Y-%m-%d %H:%M} UTC"

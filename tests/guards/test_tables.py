"""Every table of the databases as migrated: classified, tenant-bound, and no more open than it must be (ENC-5)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from strongroom.assembly import Installation
from strongroom.database.catalogue import CATALOGUE, DataClass
from strongroom.database.databases import APP_ROLE, CARDS, CARDS_ROLE, DIRECTORY, url_of

Connection = psycopg.Connection[Any]

OUTSIDE_TENANCY = {
    "card_tenants": "whose keys a new root key has to wrap again: ids, and nothing else",
    "card_sessions": "found by the hash of their secret, before a tenant is known",
    "schema_migrations": "the administrator's; the application's role can't even read it",
    "due_mails": "which accounts have letters to be sent: the worker asks before it knows an account",
    "due_work": "which tenants have work, and from which day: the worker asks before it knows a tenant",
}
"""Tables of a region without row-level security, and why."""
OTHER_KEYS = {
    "api_keys": "keys of accounts have no tenant; a public key is unique over all",
    "audit_entries": "entries of accounts have no tenant; their order is over all",
    "card_events": "their order is over all",
    "card_sessions": "found by the hash of their secret, before a tenant is known",
}
"""Tables with a tenant whose primary key doesn't begin with it, and why; row-level security holds for them, too."""
APPEND_ONLY = {
    "region": {"audit_entries", "instruction_events", "data_keys", "bulk_results", "openings", "alerts"},
    "directory": {"evidence"},
    "cards": {"card_keys", "card_events"},
}
UNREADABLE = {DataClass.SEALED, DataClass.SENSITIVE, DataClass.WRAPPED}
"""Classes of what nobody reads without a key."""
UNTOUCHED = {"schema_migrations"}
"""What the application's role may do nothing with."""


@pytest.fixture(params=["directory", "eu", "ch", "cards"])
def database(installation: Installation, request: pytest.FixtureRequest) -> Iterator[tuple[str, Connection]]:
    """Each database of the installation as its administrator, with its kind; whatever is changed is rolled back."""
    name = request.param
    with psycopg.connect(url_of(installation.admin_url, name).reveal()) as connection:
        yield (name if name in {DIRECTORY, CARDS} else "region"), connection
        connection.rollback()


def test_these_are_all_the_databases(installation: Installation) -> None:
    with psycopg.connect(url_of(installation.admin_url, DIRECTORY).reveal()) as connection:
        rows = connection.execute("select datname from pg_database where datname ^@ 'strongroom_'").fetchall()
    assert {row[0] for row in rows} == {"strongroom_directory", "strongroom_eu", "strongroom_ch", "strongroom_cards"}
    assert installation.config.regions == ("eu", "ch")


def columns_of(connection: Connection) -> dict[str, dict[str, str]]:
    """Table → column → type, of everything that holds rows."""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(
        """
        select c.relname, a.attname, format_type(a.atttypid, a.atttypmod)
        from pg_class c join pg_namespace n on n.oid = c.relnamespace join pg_attribute a on a.attrelid = c.oid
        where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relkind in ('r', 'p', 'm', 'f', 'v')
          and a.attnum > 0 and not a.attisdropped
        """
    ):
        found.setdefault(table, {})[column] = kind
    return found


def unclassified(kind: str, connection: Connection) -> list[str]:
    """Columns that the catalogue lacks, or has for nothing."""
    there = {(table, column) for table, columns in columns_of(connection).items() for column in columns}
    listed = {(table, column) for table, columns in CATALOGUE[kind].items() for column in columns}
    return sorted(f"{table}.{column}" for table, column in there ^ listed)


def unsealed(kind: str, connection: Connection) -> list[str]:
    """Columns that are said to hold envelopes and can't, or whose name says envelope and the catalogue doesn't."""
    types = columns_of(connection)
    return sorted(
        f"{table}.{column}"
        for table, columns in CATALOGUE[kind].items()
        for column, entry in columns.items()
        if (entry.data_class in UNREADABLE)
        != (types[table][column] == "bytea" and column.endswith(("sealed", "sensitive", "wrapped")))
    )


def open_to_all(kind: str, connection: Connection) -> list[str]:
    """Tables whose rows are not confined to their tenant or account."""
    if kind == "directory":
        return []
    rows = connection.execute(
        """
        select c.relname, c.relrowsecurity and c.relforcerowsecurity,
               count(p.reads) > 0 and bool_and(coalesce(p.reads, p.writes) ~ 'current_(tenant|account)|api_keys')
        from pg_class c left join (
            select polrelid, pg_get_expr(polqual, polrelid) as reads, pg_get_expr(polwithcheck, polrelid) as writes
            from pg_policy) p on p.polrelid = c.oid
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') group by c.oid
        """
    ).fetchall()
    return sorted(name for name, on, confined in rows if name not in OUTSIDE_TENANCY and not (on and confined))


def unbound_keys(connection: Connection) -> list[str]:
    """Keys, foreign keys and unique indexes of tenants' tables that don't begin with the tenant."""
    rows = connection.execute(
        """
        with tenants_tables as (
            select c.oid, c.relname
            from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
            where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p'))
        select t.relname, x.conname, (select attname from pg_attribute where attrelid = t.oid and attnum = x.conkey[1])
        from tenants_tables t join pg_constraint x on x.conrelid = t.oid and x.contype in ('p', 'f', 'u')
        union all
        select t.relname, i.indexrelid::regclass::text,
               (select attname from pg_attribute where attrelid = t.oid and attnum = i.indkey[0])
        from tenants_tables t join pg_index i on i.indrelid = t.oid and i.indisunique
        """
    ).fetchall()
    return sorted(f"{table}: {name}" for table, name, first in rows if first != "tenant_id" and table not in OTHER_KEYS)


def rights(connection: Connection, role: str) -> dict[str, set[str]]:
    """What a role, or everybody, may do with each table."""
    found: dict[str, set[str]] = {}
    for table, right in connection.execute(
        """
        select c.relname, a.privilege_type
        from pg_class c left join lateral aclexplode(c.relacl) a on a.grantee in (0, %s::regrole)
        where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'S')
        """,
        (role,),
    ):
        found.setdefault(table, set()).update({right} if right else set())
    return found


def test_every_column_is_classified(database: tuple[str, Connection]) -> None:
    assert unclassified(*database) == []


def test_sealed_columns_hold_envelopes(database: tuple[str, Connection]) -> None:
    assert unsealed(*database) == []


def test_rows_are_confined_to_their_tenant(database: tuple[str, Connection]) -> None:
    assert open_to_all(*database) == []


def test_the_directory_holds_ids_and_regions_only(database: tuple[str, Connection]) -> None:
    kind, connection = database
    if kind == "directory":
        types = columns_of(connection)
        for table in ("accounts", "tenants", "api_keys"):
            assert set(types[table]) <= {"account_id", "tenant_id", "public_key", "region", "environment", "made_by"}
    elif kind == "region":
        assert columns_of(connection)["due_work"] == {"tenant_id": "uuid", "due_on": "date"}


def test_keys_begin_with_the_tenant(database: tuple[str, Connection]) -> None:
    kind, connection = database
    if kind != "directory":
        assert unbound_keys(connection) == []


def test_the_application_may_do_what_it_must_and_no_more(database: tuple[str, Connection]) -> None:
    kind, connection = database
    found = rights(connection, CARDS_ROLE if kind == "cards" else APP_ROLE)
    for table in APPEND_ONLY[kind]:
        assert found[table] == {"SELECT", "INSERT"}, table
    for table in UNTOUCHED:
        assert found[table] == set()
    everything = set().union(*found.values())
    assert everything <= {"SELECT", "INSERT", "UPDATE", "DELETE", "USAGE"}
    for table in ("orders", "instructions", "transactions", "statements", "customers", "payment_files"):
        assert "DELETE" not in found.get(table, set()), table


@pytest.mark.parametrize("role", [APP_ROLE, CARDS_ROLE])
def test_our_roles_own_nothing(database: tuple[str, Connection], role: str) -> None:
    _, connection = database
    owned = "select count(*) from pg_class where relowner = %s::regrole"
    assert connection.execute(owned, (role,)).fetchone() == (0,)
    members = "select count(*) from pg_auth_members where member = %s::regrole"
    assert connection.execute(members, (role,)).fetchone() == (0,)
    assert (
        connection.execute(
            "select rolsuper, rolbypassrls, rolcreaterole, rolcreatedb, rolreplication, rolinherit from pg_roles "
            "where rolname = %s",
            (role,),
        ).fetchone()
        == (False,) * 6
    )
    # A function that runs as its owner would be a way round all of it.
    definers = "select proname from pg_proc where prosecdef and pronamespace = 'public'::regnamespace"
    assert connection.execute(definers).fetchall() == []


def test_each_role_gets_into_its_own_databases_only(database: tuple[str, Connection]) -> None:
    kind, connection = database
    may = {
        role: connection.execute("select has_database_privilege(%s, current_database(), 'connect')", (role,)).fetchone()
        for role in (APP_ROLE, CARDS_ROLE)
    }
    assert may == {APP_ROLE: (kind != "cards",), CARDS_ROLE: (kind == "cards",)}


@pytest.mark.parametrize(
    ("statement", "finds"),
    [
        ("create table stray (tenant_id uuid primary key)", {"unclassified": ["stray.tenant_id"], "open": ["stray"]}),
        ("alter table orders add column note text", {"unclassified": ["orders.note"]}),
        ("alter table orders alter column sealed type text using ''", {"unsealed": ["orders.sealed"]}),
        ("alter table orders no force row level security", {"open": ["orders"]}),
        ("alter table orders disable row level security", {"open": ["orders"]}),
        ("drop policy tenancy on orders", {"open": ["orders"]}),
        ("create policy wide on orders using (true)", {"open": ["orders"]}),
        ("create unique index mine on orders (order_id)", {"keys": ["orders: mine"]}),
        (
            "alter table instruction_events "
            "add constraint loose foreign key (transaction_id) references api_keys not valid",
            {"keys": ["instruction_events: loose"]},
        ),
    ],
)
def test_the_guard_finds_what_is_wrong(installation: Installation, statement: str, finds: dict[str, list[str]]) -> None:
    with psycopg.connect(url_of(installation.admin_url, "eu").reveal()) as connection:
        connection.execute(statement.encode())
        found = {
            "unclassified": unclassified("region", connection),
            "unsealed": unsealed("region", connection) if "unclassified" not in finds else [],
            "open": open_to_all("region", connection),
            "keys": unbound_keys(connection),
        }
        connection.rollback()
    assert {what: names for what, names in found.items() if names} == finds

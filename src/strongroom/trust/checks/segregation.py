"""ENC-5: nobody gets at what belongs to somebody else: not by the API, not by SQL, not by copying rows.

A tenant of the stage is furnished with something of everything. Then another account's tenant, in the same region,
tries every route of the API with the first one's ids, and every kind of statement on every table as the application's
role. The database's own locks are read from its catalogue, sealed rows are carried over as administrator, and every
tenant's rows are looked for in the regions where they don't belong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
import psycopg
from psycopg import sql

from strongroom.audit import raise_alert
from strongroom.database import KeysChanged, Operation
from strongroom.database.databases import APP_ROLE, DIRECTORY
from strongroom.kernel.errors import Broken
from strongroom.kernel.ids import new_uuid
from strongroom.outbound import Answer
from strongroom.payments.instructions import TransactionContent
from strongroom.payments.transactions import seal_content
from strongroom.rails.marketplace import SEPA_CREDIT_TRANSFER
from strongroom.trust import bank
from strongroom.trust.client import Caller, codes
from strongroom.trust.columns import find_columns
from strongroom.trust.furnishing import furnish_access, furnish_person, furnish_revocation, furnish_single_sign_on
from strongroom.trust.routes import path_of
from strongroom.trust.stage import PROVER, Seat, Stage, stage
from strongroom.trust.verdicts import Figure, Findings
from strongroom.trust.workbench import AdminConnection, Endpoint, Workbench
from strongroom.vault import Layer, Scope, run_work
from strongroom.vault.work import ONCE, begin_work

OUTSIDE: Final = frozenset({"due_work", "due_mails"})
"""Tables with a tenant's id that stand outside tenancy, on purpose: ids and days, which the worker reads."""
_SCOPES: Final = ("tenant_id", "scope_id", "account_id", "public_key")
"""The column that says whose a row is: the first of these that a table has."""
_SEALED: Final[Mapping[str, str]] = {
    "orders": "order_id",
    "instructions": "instruction_id",
    "customers": "customer_id",
    "financial_instruments": "financial_instrument_id",
    "transactions": "transaction_id",
    "api_keys": "public_key",
    "tenants": "tenant_id",
}
"""Tables with envelopes → the column whose id an envelope is bound to."""
_UNCOUNTED: Final = frozenset({"audit_entries", "nonces", "openings"})
"""Tables that reads and sign-ins write to, so that they change although nothing was got at."""
_REFUSED: Final = frozenset({400, 403, 404})
_AT_THE_CARD_VAULT: Final = frozenset({"POST /v1/customer-vault/{customerRef}/card-session"})
"""Done by the card vault, for the asker's own tenant; where parts are started for the checks alone, it is away."""
_NOT_FURNISHED: Final = frozenset({"GET /v1/schemes/collect/{schemeId}/published"})
"""What even the owner has not got: production has no app yet that collects, so no collect scheme can be published."""
_NEVER_SHARED: Final = (
    "jobId", "schemeId", "draftId", "id", "financialInstrumentId", "transactionId", "tenantId", "publicKey",
    "statementId", "rotationId", "userId", "sessionId", "ruleId", "domainId",
)  # fmt: skip
"""Path parameters that are ids: somebody else's is never anything of one's own."""
_QUERIES: Final = {"GET /v1/customer-vault": "?customerRef={customerRef}"}
"""What routes without anything in their paths have to be asked."""
_FAR_OFF: Final = "2099-12-31"
_IBAN: Final = "DE89370400440532013000"
_FORGOTTEN: Final = {"type": "BANK_ACCOUNT", "accountHolderName": "Ada Sample", "iban": _IBAN}
"""The account of a customer who is forgotten at once, which leaves a secret that was destroyed."""
"""The published example."""
_ORDERS: Final = "/v1/order-management"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    """A table with rows of tenants; `column` says whose."""

    name: str
    column: str

    def belongs_to(self, seat: Seat) -> Sequence[UUID]:
        """What stands in `column` in the seat's rows."""
        owners: Mapping[str, Sequence[UUID]] = {
            "tenant_id": [seat.tenant_id],
            "scope_id": [seat.tenant_id, seat.account_id],
            "account_id": [seat.account_id],
            "public_key": [seat.key.public_key, seat.account_key.public_key],
        }
        return owners[self.column]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Belongings:
    """What the furnished tenant has: ids as they stand in paths, and words that only its own data holds."""

    ids: Mapping[str, str]
    words: Sequence[str]


async def check_segregation(bench: Workbench) -> Figure:
    """See the module."""
    findings = Findings()
    async with stage(bench) as scene:
        for region in bench.config.regions:
            await _check_locks(findings, bench, region)
        if findings.breaches:
            return findings.figure("")  # with the locks off there is no point in trying the doors
        belongings = await _furnish(bench, scene)
        routes = await _walk_routes(findings, bench, scene, belongings)
        await _plant_file(bench, scene.here)
        tables = await _walk_tables(findings, bench, scene)
        envelopes = await _check_envelopes(findings, bench, scene)
        tenants = await _check_regions(findings, bench, scene)
    return findings.figure(
        f"{tables} tables and {routes} routes walked as another tenant: 0 rows seen or changed; {envelopes} kinds of "
        f"envelope don't open elsewhere; {tenants} tenants each in one of {len(bench.config.regions)} regions"
    )


async def _check_locks(findings: Findings, bench: Workbench, region: str) -> None:
    """Row-level security is on, forced and not to be got round."""
    async with bench.admin(region) as connection:
        tables = {table.name for table in await _tables(connection)}
        cursor = await connection.execute(
            "select relname, relrowsecurity, relforcerowsecurity, pg_get_userbyid(relowner), "
            "exists (select from pg_policy where polrelid = pg_class.oid) "
            "from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        )
        for name, enabled, forced, owner, has_policy in await cursor.fetchall():
            findings.expect(owner != APP_ROLE, f"{region}.{name} belongs to the application's role")
            if name in tables:
                findings.expect(enabled, f"{region}.{name} has no row-level security")
                findings.expect(forced, f"{region}.{name} does not force row-level security on its owner")
                findings.expect(has_policy, f"{region}.{name} has no policy")
        cursor = await connection.execute(
            "select rolsuper or rolbypassrls or rolcreaterole or rolcreatedb or rolreplication, "
            "exists (select from pg_auth_members where member = pg_roles.oid) from pg_roles where rolname = %s",
            (APP_ROLE,),
        )
        row = await cursor.fetchone()
        findings.expect(row == (False, False), "the application's role can get round row-level security")
    async with bench.databases.operation(PROVER, region=region) as op:
        user = await op.row("select current_user")
        findings.expect(user == (APP_ROLE,), f"the application is connected as {user and user[0]}")


async def _furnish(bench: Workbench, scene: Stage) -> _Belongings:
    """Give the tenant `here` something of everything that the API makes."""
    caller, seat = await scene.caller(scene.here), scene.here
    word = f"prove-{new_uuid().hex}"
    note = {"note": word}
    order, customer = "prove-order", "prove-customer"
    rules = [{"apps": [{"appId": SEPA_CREDIT_TRANSFER}], "currencies": ["EUR"]}]
    settings = {"holder": "Ada Sample", "iban": _IBAN, **bank.SETTINGS}
    await caller.done("POST", f"/v1/marketplace/apps/{SEPA_CREDIT_TRANSFER}/install")
    await caller.done("POST", f"/v1/apps/installed/{SEPA_CREDIT_TRANSFER}/configuration", settings)
    schemes = {}
    for kind, draft in (
        ("payout", {"name": word, "rules": rules}),
        ("collect", {"name": f"{word} 2", "agreementType": "SingleUse", "rules": []}),
    ):
        made = await caller.done("POST", f"/v1/schemes/{kind}", draft)
        schemes[kind] = (made["schemeId"], made["drafts"][0]["draftId"])
    scheme_id, draft_id = schemes["payout"]
    await caller.done("POST", f"/v1/schemes/payout/{scheme_id}/drafts/{draft_id}/publish")
    account = {"type": "BANK_ACCOUNT", "accountHolderName": word, "iban": _IBAN}
    instrument = await caller.done("POST", f"/v1/customer-vault/{customer}/financial-instrument", account)
    whole = {
        "orderRef": order,
        "metadata": note,
        "customerDefaults": {customer: {"metadata": note}},
        "instructions": [
            _instruction("prove-instruction", customer, scheme_id, instrument["id"], note),
            _instruction("prove-cancelled", customer, None, None, note),
        ],
    }
    answer = await caller.send("POST", _ORDERS, whole, idempotency_key=word)
    if answer.status != 202:
        raise ValueError(f"furnishing was answered {answer.status} {codes(answer)}")
    await caller.done("POST", f"{_ORDERS}/{order}/instruction/prove-cancelled/cancel", {"reason": word})
    line = {"orderRef": "prove-bulk", **_instruction("prove-line", customer, None, None, note)}
    job = await caller.done("POST", f"{_ORDERS}/bulk", msgspec.json.encode(line), content_type="application/x-ndjson")
    report = bank.statement(iban=_IBAN, amount=Decimal("12.34"), text=word, day=caller.today)
    taken = await caller.done("POST", "/v1/reconciliation/reports", report, content_type="application/xml")
    asked = {"fields": ["iban"], "purpose": "customer-service", "reason": word}
    await caller.done("POST", f"/v1/customer-vault/{customer}/open", asked)
    transaction = await _plant_transaction(bench, seat)
    rotation = await _rotate_keys(bench, caller, Scope(account=seat.account_id, tenant=seat.tenant_id))
    account_rotation = await _rotate_keys(bench, await scene.account_caller(seat), Scope(account=seat.account_id))
    async with bench.databases.operation(PROVER, tenant=seat.tenant_id) as op:
        await raise_alert(op, "prove", "check", word, detail="", again_after=timedelta(0))
    await caller.done("PUT", "/v1/tenant/ip-whitelist", {"enabled": False, "rules": []})
    await caller.done("POST", "/v1/customer-vault/prove-forgotten/financial-instrument", _FORGOTTEN)
    await caller.done("DELETE", "/v1/customer-vault/prove-forgotten")
    person, session = await furnish_person(bench, seat)
    payout = _instruction("prove-payout", customer, scheme_id, instrument["id"], note)
    access = await furnish_access(scene, payout)
    domain_id, domain = await furnish_single_sign_on(bench, scene)
    await furnish_revocation(scene)
    return _Belongings(
        ids={
            "orderRef": order,
            "instructionRef": "prove-instruction",
            "customerRef": customer,
            "schemeId": scheme_id,
            "draftId": draft_id,
            "collectSchemeId": schemes["collect"][0],
            "collectDraftId": schemes["collect"][1],
            "id": instrument["id"],
            "financialInstrumentId": instrument["id"],
            "transactionId": str(transaction),
            "jobId": job["jobId"],
            "statementId": taken["reports"][0]["statementId"],
            "entryNo": "1",
            "appId": SEPA_CREDIT_TRANSFER,
            "tenantId": str(seat.tenant_id),
            "publicKey": str(seat.key.public_key),
            "layer": Layer.PLATFORM.value,
            "version": "1",
            "rotationId": rotation,
            "accountRotationId": account_rotation,
            "userId": str(person),
            "sessionId": str(session),
            "domainId": str(domain_id),
            **access,
        },
        words=[
            word, scheme_id, draft_id, instrument["id"], str(transaction), job["jobId"], rotation, account_rotation,
            str(seat.tenant_id), str(seat.account_id), str(seat.key.public_key), str(seat.account_key.public_key),
            str(person), str(session), str(domain_id), domain,
        ],
    )  # fmt: skip


async def _rotate_keys(bench: Workbench, caller: Caller, scope: Scope) -> str:
    """A rotation of the caller's scope key, done at once; its id."""
    level = "account" if scope.tenant is None else "tenant"
    wanted = {"layer": Layer.PLATFORM.value, "key": "scope"}
    begun = await caller.done("POST", f"/v1/{level}/encryption-keys/rotations", wanted)
    await run_work(bench.databases, bench.keyring, scope)
    return str(begun["rotationId"])


def _instruction(
    ref: str, customer: str, scheme: str | None, instrument: str | None, note: Mapping[str, str]
) -> dict[str, Any]:
    return {
        "instructionRef": ref,
        "customerRef": customer,
        "direction": "CREDIT",
        "amount": "12.34",
        "currency": "EUR",
        "country": "DE",
        "settledByDate": _FAR_OFF,
        "schemeId": scheme,
        "financialInstrumentId": instrument,
        "metadata": note,
    }


async def _plant_transaction(bench: Workbench, seat: Seat) -> UUID:
    """An attempt that failed long ago: dispatch isn't to pick anything up."""
    async with bench.databases.operation(PROVER, tenant=seat.tenant_id) as op:
        row = await op.row("select order_id, instruction_id from instructions where scheme_id is not null")
        if row is None:
            raise LookupError("the instruction was made a moment ago")
        transaction_id = new_uuid()
        await op.run(
            "insert into transactions (tenant_id, transaction_id, order_id, instruction_id, app_id, status, sealed, "
            "created_at, updated_at) values (%s, %s, %s, %s, %s, 'FAILED', %s, %s, %s)",
            op.tenant,
            transaction_id,
            *row,
            SEPA_CREDIT_TRANSFER,
            seal_content(op, transaction_id, TransactionContent()),
            op.now,
            op.now,
        )
    return transaction_id


async def _plant_file(bench: Workbench, seat: Seat) -> None:
    """A file for a bank, which only dispatch makes, and work on keys, which only the worker does."""
    async with bench.databases.operation(PROVER, tenant=seat.tenant_id) as op:
        file_id = new_uuid()
        await begin_work(op, "carry-over", Layer.CUSTOMER, 1)
        await op.run(
            "insert into payment_files (tenant_id, file_id, app_id, status, sealed, created_at, updated_at) "
            "values (%s, %s, %s, 'ANSWERED', %s, %s, %s)",
            op.tenant,
            file_id,
            SEPA_CREDIT_TRANSFER,
            op.cipher.seal("payment_files", "sealed", file_id.bytes, b"prove"),
            op.now,
            op.now,
        )


async def _walk_routes(findings: Findings, bench: Workbench, scene: Stage, belongings: _Belongings) -> int:
    """Every route that takes a token, as somebody else; what the owner may read shows that the ids are right."""
    tenant, account = await scene.caller(scene.other), await scene.account_caller(scene.other)
    owner, owners_account = await scene.caller(scene.here), await scene.account_caller(scene.here)
    before = await _fingerprint(bench, scene.here)
    routes = [endpoint for endpoint in bench.endpoints if endpoint.level != "public"]
    for endpoint in routes:
        path = _path(endpoint, belongings, account_keys=scene.here)
        body = _body(endpoint)
        stranger, rightful = (tenant, owner) if endpoint.level == "tenant" else (account, owners_account)
        swapped = {"x_account_id": str(scene.here.account_id), "x_tenant_id": str(scene.here.tenant_id)}
        answer = await stranger.send(endpoint.method, path, body, **swapped)
        findings.expect(answer.status == 403, f"{endpoint} answers {answer.status} when another tenant is named")
        if "{" in endpoint.path or endpoint.method == "GET":
            answer = await stranger.send(endpoint.method, path, body)
            _check_answer(findings, endpoint, path, answer, belongings)
        if endpoint.method == "GET" and str(endpoint) not in _NOT_FURNISHED:
            answer = await rightful.send("GET", path)
            findings.expect(answer.status == 200, f"{endpoint} answers {answer.status} to the owner: nothing is shown")
    await _try_to_borrow(findings, tenant, belongings)
    after = await _fingerprint(bench, scene.here)
    changed = ", ".join(table for table, digest in after.items() if before.get(table) != digest)
    findings.expect(not changed, f"another tenant's requests changed rows of {changed}")
    return len(routes)


def _check_answer(findings: Findings, endpoint: Endpoint, path: str, answer: Answer, belongings: _Belongings) -> None:
    is_away = answer.status == 503 and str(endpoint) in _AT_THE_CARD_VAULT
    findings.expect(
        answer.status < 300 or answer.status in _REFUSED or is_away,
        f"{endpoint} answers {answer.status} to another tenant",
    )
    shown = [word for word in belongings.words if word not in path and word.encode() in answer.body]
    findings.expect(not shown, f"{endpoint} shows another tenant's data")
    names_something = any(f"{{{name}}}" in endpoint.path for name in _NEVER_SHARED)
    findings.expect(
        not (names_something and answer.status < 300), f"{endpoint} answers {answer.status} for another tenant's id"
    )


async def _try_to_borrow(findings: Findings, caller: Caller, belongings: _Belongings) -> None:
    """Use another tenant's scheme, and its customer's account, in an instruction of one's own."""
    for name, borrowed in (("schemeId", {"scheme": True}), ("id", {"scheme": False})):
        wanted = belongings.ids[name]
        scheme, instrument = (wanted, None) if borrowed["scheme"] else (None, wanted)
        ref = f"prove-{name.lower()}"
        order = {"orderRef": ref, "instructions": [_instruction("1", "prove-2", scheme, instrument, {})]}
        answer = await caller.send("POST", _ORDERS, order)
        if answer.status < 300:
            answer = await caller.send("GET", f"{_ORDERS}/{ref}")
            findings.expect(
                wanted.encode() not in answer.body, f"another tenant's {name} can be used in an instruction"
            )
        else:
            findings.expect(answer.status == 400, f"using another tenant's {name} is answered {answer.status}")


def _path(endpoint: Endpoint, belongings: _Belongings, *, account_keys: Seat) -> str:
    known = dict(belongings.ids)
    if endpoint.path.startswith("/v1/schemes/collect"):
        known |= {"schemeId": known["collectSchemeId"], "draftId": known["collectDraftId"]}
    if endpoint.path.startswith("/v1/account/keys"):
        known["publicKey"] = str(account_keys.account_key.public_key)
    if endpoint.path.startswith("/v1/account/encryption-keys"):
        known["rotationId"] = known["accountRotationId"]
    return path_of(endpoint, **known) + _QUERIES.get(str(endpoint), "").format_map(known)


def _body(endpoint: Endpoint) -> Mapping[str, Any] | None:
    """A request that would be carried out, were the thing one's own."""
    if endpoint.method not in {"POST", "PUT"}:
        return None
    last = endpoint.path.rpartition("/")[2]
    if endpoint.path.endswith("/drafts") or "/drafts/{draftId}" in endpoint.path:
        return {"name": "prove", "agreementType": "SingleUse", "rules": []}
    if "key" in last.lower():
        return {"name": "prove", "roles": ["tenant-admin" if "/tenant" in endpoint.path else "account-admin"]}
    return {
        "instruction": _instruction("prove-new", "prove-2", None, None, {}),
        "financial-instrument": {
            "type": "BANK_ACCOUNT", "accountHolderName": "Ada Sample", "iban": _IBAN,
            "financialInstrumentId": None,
        },
        "explain": {"currency": "EUR", "country": "DE", "amount": "1.00"},
        "reject": {"reason": "prove"},
        "cancel": {"reason": "prove"},
        "resolve": {"note": "prove"},
        "{tenantId}": {"name": "prove"},
        "{customerRef}": {"metadata": {"note": "prove"}},
        "{instructionRef}": {"metadata": {"note": "prove"}},
    }.get(last, {"note": "prove"})  # fmt: skip


async def _fingerprint(bench: Workbench, seat: Seat) -> Mapping[str, str]:
    """A digest of every table's rows of a tenant."""
    found = {}
    async with bench.admin(seat.region) as connection:
        for table in await _tables(connection):
            if table.name not in _UNCOUNTED:
                # Once for each tenant the worker looks at all its rows, whenever it comes around, and notes that.
                others = "t.kind <> all(%(once)s)" if table.name == "key_work" else "true"
                statement = sql.SQL(
                    "select md5(string_agg(t::text, ' ' order by t::text)) from {} t where {} = any(%(ids)s) and {}"
                ).format(sql.Identifier(table.name), sql.Identifier(table.column), sql.SQL(others))
                cursor = await connection.execute(statement, {"ids": list(table.belongs_to(seat)), "once": list(ONCE)})
                row = await cursor.fetchone()
                found[table.name] = str(row and row[0])
    return found


async def _tables(connection: AdminConnection) -> Sequence[_Table]:
    """The tables of a region that hold tenants' rows, as they really are."""
    columns = await find_columns(connection)
    return [
        _Table(name=name, column=next(column for column in _SCOPES if column in names))
        for name, names in columns.items()
        if name not in OUTSIDE and names & set(_SCOPES)
    ]


async def _walk_tables(findings: Findings, bench: Workbench, scene: Stage) -> int:
    """Every table, as the application's role, in an operation of somebody else's tenant and of their account."""
    here, other = scene.here, scene.other
    samples = {}
    async with bench.admin(here.region) as connection:
        tables = await _tables(connection)
        for table in tables:
            statement = sql.SQL("select t::text from {} t where {} = any(%s) limit 1").format(
                sql.Identifier(table.name), sql.Identifier(table.column)
            )
            cursor = await connection.execute(statement, (list(table.belongs_to(here)),))
            row = await cursor.fetchone()
            findings.expect(row is not None, f"{table.name} has no row that others could get at: nothing is shown")
            if row is not None:
                samples[table] = str(row[0])
    for tenant in (other.tenant_id, None):
        async with bench.databases.operation(PROVER, account=other.account_id, tenant=tenant, region=here.region) as op:
            for table, sample in samples.items():
                await _try_table(findings, op, table, here, sample)
    return len(samples)


async def _try_table(findings: Findings, op: Operation, table: _Table, owner: Seat, sample: str) -> None:
    name, column, theirs = sql.Identifier(table.name), sql.Identifier(table.column), list(table.belongs_to(owner))
    owned = sql.SQL("{} = any(%s)").format(column)
    add = sql.SQL("insert into {0} overriding system value select (row).* from (select %s::{0} as row) copied").format(
        name
    )
    attempts = (
        ("seen", sql.SQL("select from {} where {}").format(name, owned), theirs),
        ("changed", sql.SQL("update {} set {} = {} where {}").format(name, column, column, owned), theirs),
        ("removed", sql.SQL("delete from {} where {}").format(name, owned), theirs),
        ("added", add, sample),
        ("made of one's own", sql.SQL("update {} set {} = %s").format(name, column), theirs[0]),
    )
    for what, attempt, parameter in attempts:
        touched = 0
        try:
            async with op.connection.transaction(force_rollback=True):
                touched = (await op.connection.execute(attempt, (parameter,))).rowcount
        except psycopg.errors.InsufficientPrivilege:
            pass  # the right answer: by row-level security, or because nobody may
        except psycopg.IntegrityError:
            # An insert that gets as far as this was let through; a row can't be renamed to one that others refer to.
            touched = int(what == "added")
        findings.expect(touched == 0, f"{table.name}: {touched} rows of another tenant can be {what}")


async def _check_envelopes(findings: Findings, bench: Workbench, scene: Stage) -> int:
    """Carry every kind of envelope over to the other tenant, and try to open it there."""
    here, other = scene.here, scene.other
    found: dict[str, tuple[UUID, bytes]] = {}
    async with bench.databases.operation(PROVER, account=here.account_id, tenant=here.tenant_id) as op:
        for table, column in _SEALED.items():
            cursor = await op.connection.execute(
                sql.SQL("select {}, sealed from {} limit 1").format(sql.Identifier(column), sql.Identifier(table))
            )
            row = await cursor.fetchone()
            if row is None:
                findings.breach(f"{table} has no envelope to carry over")
                continue
            op.cipher.open(table, "sealed", row[0].bytes, row[1])
            found[table] = (row[0], row[1])
    order_id, _ = found["orders"]
    async with bench.admin(here.region) as connection:
        await connection.execute(
            "insert into orders select %s, order_id, sealed, created_at, updated_at from orders "
            "where tenant_id = %s and order_id = %s",
            (other.tenant_id, here.tenant_id, order_id),
        )
    async with bench.databases.operation(PROVER, account=other.account_id, tenant=other.tenant_id) as op:
        copied = await op.row("select sealed from orders where order_id = %s", order_id)
        there = copied is not None and copied[0] == found["orders"][1]
        findings.expect(there, "the copied order is not where it was put: nothing is shown")
        for table, (row_id, sealed) in found.items():
            try:
                op.cipher.open(table, "sealed", row_id.bytes, sealed)
            except (KeysChanged, Broken):
                continue
            findings.breach(f"an envelope of {table}.sealed opens in another tenant")
    return len(found)


async def _check_regions(findings: Findings, bench: Workbench, scene: Stage) -> int:
    """Every tenant's rows are in its own region's database and in no other."""
    async with bench.admin(DIRECTORY) as connection:
        cursor = await connection.execute("select tenant_id, region from tenants")
        homes = {row[0]: row[1] for row in await cursor.fetchall()}
    databases = set()
    for region in bench.config.regions:
        residents = [tenant for tenant, home in homes.items() if home == region]
        async with bench.admin(region) as connection:
            cursor = await connection.execute("select current_database()")
            databases.add(await cursor.fetchone())
            for table in await _tables(connection):
                if table.column != "tenant_id":
                    continue
                cursor = await connection.execute(
                    sql.SQL("select distinct tenant_id from {} where not tenant_id = any(%s)").format(
                        sql.Identifier(table.name)
                    ),
                    (residents,),
                )
                strangers = await cursor.fetchall()
                findings.expect(
                    not strangers, f"{region}.{table.name} has rows of {len(strangers)} tenants from elsewhere"
                )
    findings.expect(len(databases) == len(bench.config.regions), "two regions share one database")
    for seat in scene.seats:
        for region in bench.config.regions:
            async with bench.databases.operation(
                PROVER, account=seat.account_id, tenant=seat.tenant_id, region=region
            ) as op:
                row = await op.row("select count(*) from tenants where tenant_id = %s", seat.tenant_id)
            expected = int(region == seat.region)
            found = row[0] if row else 0
            findings.expect(found == expected, f"a tenant of {seat.region} is found {found} times in {region}")
    return len(homes)

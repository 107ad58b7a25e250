-- One region's data. Every row belongs to a tenant (or, above tenants, to an account); row-level security is enabled
-- and forced; strongroom_app owns nothing. What describes a transaction or a person is in `sealed` columns only.
-- Orders, instructions and customers have no id on the wire: theirs is the tenant's keyed hash of their reference,
-- so that the primary key itself refuses duplicates and look-ups need no second index.

create function current_account() returns uuid language sql stable
    return nullif(current_setting('strongroom.account', true), '')::uuid;
create function current_tenant() returns uuid language sql stable
    return nullif(current_setting('strongroom.tenant', true), '')::uuid;

create table accounts (
    account_id uuid primary key,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);

create table tenants (
    tenant_id uuid primary key,
    account_id uuid not null,
    status text not null check (status in ('AWAITING_APPROVAL', 'APPROVED', 'REJECTED', 'DELETED')),
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null
);
create index on tenants (account_id);

create table data_keys (
    scope_id uuid not null,
    purpose text not null check (purpose in ('seal', 'index')),
    version integer not null check (version > 0),
    wrapped bytea not null,
    created_at timestamptz not null,
    primary key (scope_id, purpose, version)
);

create table api_keys (
    public_key uuid primary key,
    account_id uuid not null,
    tenant_id uuid references tenants,
    environment text not null check (environment in ('sandbox', 'production')),
    roles text[] not null,
    sealed bytea not null,
    created_at timestamptz not null,
    deleted_at timestamptz
);
create index on api_keys (account_id, tenant_id);

create table nonces (
    public_key uuid not null references api_keys,
    nonce_hash bytea not null,
    expires_at timestamptz not null,
    primary key (public_key, nonce_hash)
);
create index on nonces (expires_at);

create table audit_entries (
    entry_id bigint generated always as identity primary key,
    at timestamptz not null,
    account_id uuid,
    tenant_id uuid,
    actor_kind text not null,
    actor_id text not null,
    action text not null,
    outcome text not null check (outcome in ('done', 'refused')),
    subject_kind text not null,
    subject_id text not null,
    detail text not null,
    correlation_id text not null
);
create index on audit_entries (tenant_id, entry_id);

create table idempotency_keys (
    scope_id uuid not null,
    key_hash bytea not null,
    request_hash bytea not null,
    status integer,
    sealed bytea,
    created_at timestamptz not null,
    primary key (scope_id, key_hash)
);
create index on idempotency_keys (created_at);

create table installed_apps (
    tenant_id uuid not null references tenants,
    app_id text not null,
    sealed bytea not null,
    installed_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, app_id)
);

create table schemes (
    tenant_id uuid not null references tenants,
    scheme_id text not null check (scheme_id ~ '^[0-9A-F]{32}$'),
    kind text not null check (kind in ('collect', 'payout')),
    published_draft_id uuid,
    created_at timestamptz not null,
    primary key (tenant_id, scheme_id)
);

create table scheme_drafts (
    tenant_id uuid not null,
    draft_id uuid not null,
    scheme_id text not null,
    name text not null,
    code text not null,
    agreement_type text,
    rules jsonb not null,
    last_modified timestamptz not null,
    primary key (tenant_id, draft_id),
    unique (tenant_id, scheme_id, draft_id),
    foreign key (tenant_id, scheme_id) references schemes on delete cascade
);
create index on scheme_drafts (tenant_id, name);
alter table schemes add foreign key (tenant_id, scheme_id, published_draft_id)
    references scheme_drafts (tenant_id, scheme_id, draft_id) deferrable initially deferred;

create table customers (
    tenant_id uuid not null,
    customer_id uuid not null,
    status text not null check (status in ('ACTIVE', 'FORGOTTEN')),
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, customer_id)
);

create table financial_instruments (
    tenant_id uuid not null,
    financial_instrument_id uuid not null,
    customer_id uuid not null,
    type text not null,
    status text not null check (status in ('ACTIVE', 'INACTIVE')),
    country text not null,
    fingerprint bytea not null,
    sealed bytea not null,
    created_at timestamptz not null,
    primary key (tenant_id, financial_instrument_id),
    unique (tenant_id, customer_id, fingerprint),
    foreign key (tenant_id, customer_id) references customers
);

create table orders (
    tenant_id uuid not null,
    order_id uuid not null,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, order_id)
);

create table order_customer_defaults (
    tenant_id uuid not null,
    order_id uuid not null,
    customer_id uuid not null,
    financial_instrument_id uuid,
    scheme_id text,
    sealed bytea not null,
    updated_at timestamptz not null,
    primary key (tenant_id, order_id, customer_id),
    foreign key (tenant_id, order_id) references orders,
    foreign key (tenant_id, customer_id) references customers,
    foreign key (tenant_id, financial_instrument_id) references financial_instruments,
    foreign key (tenant_id, scheme_id) references schemes
);

create table instructions (
    tenant_id uuid not null,
    order_id uuid not null,
    instruction_id uuid not null,
    customer_id uuid not null,
    direction text not null check (direction in ('DEBIT', 'CREDIT')),
    currency text not null,
    country text not null,
    status text not null check (status in ('INCOMPLETE', 'READY', 'AWAITING_APPROVAL', 'PROCESSING', 'UNCONFIRMED',
                                           'COMPLETED', 'FAILED', 'CANCELLED')),
    settled_by date not null,
    scheme_id text,
    scheme_source text not null,
    financial_instrument_id uuid,
    financial_instrument_source text not null,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, order_id, instruction_id),
    check (status in ('INCOMPLETE', 'CANCELLED') or (scheme_id is not null and financial_instrument_id is not null)),
    foreign key (tenant_id, order_id) references orders,
    foreign key (tenant_id, customer_id) references customers,
    foreign key (tenant_id, scheme_id) references schemes,
    foreign key (tenant_id, financial_instrument_id) references financial_instruments
);
create index instructions_ready on instructions (tenant_id, settled_by) where status = 'READY';

-- What happened to an instruction after its creation; appended to, never changed.
create table instruction_events (
    tenant_id uuid not null,
    order_id uuid not null,
    instruction_id uuid not null,
    event_id uuid not null,
    at timestamptz not null,
    status text not null,
    transaction_id uuid,
    reason text not null,
    primary key (tenant_id, order_id, instruction_id, event_id),
    foreign key (tenant_id, order_id, instruction_id) references instructions
);

-- Files sent to banks. `sealed` holds the file's exact bytes, so that it can be written again, never differently.
create table payment_files (
    tenant_id uuid not null references tenants,
    file_id uuid not null,
    app_id text not null,
    status text not null check (status in ('INTENDED', 'DELIVERED', 'ANSWERED')),
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, file_id)
);

-- Attempts to move money. INTENDED: written before the rail is told (first beat).
create table transactions (
    tenant_id uuid not null,
    transaction_id uuid not null,
    order_id uuid not null,
    instruction_id uuid not null,
    app_id text not null,
    file_id uuid,
    status text not null check (status in ('INTENDED', 'PROCESSING', 'UNCONFIRMED', 'SUCCESS', 'FAILED')),
    claimed_until timestamptz,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, transaction_id),
    foreign key (tenant_id, order_id, instruction_id) references instructions,
    foreign key (tenant_id, file_id) references payment_files
);
-- The last lock of "executed once": an instruction has at most one attempt that has not failed.
create unique index transactions_one_live on transactions (tenant_id, order_id, instruction_id) where status <> 'FAILED';
create index on transactions (tenant_id, order_id, instruction_id);
create index transactions_open on transactions (tenant_id, claimed_until) where status in ('INTENDED', 'UNCONFIRMED', 'PROCESSING');
create index on transactions (tenant_id, file_id) where file_id is not null;

-- Which tenants have work and from which day, for the worker: ids and days only, so it stands outside tenancy.
create table due_work (
    tenant_id uuid not null references tenants,
    due_on date not null,
    primary key (tenant_id, due_on)
);

create table bulk_jobs (
    tenant_id uuid not null references tenants,
    job_id uuid not null,
    key_hash bytea,
    sealed bytea not null,
    status text not null check (status in ('RUNNING', 'COMPLETED', 'INTERRUPTED')),
    lines_done bigint not null,
    accepted bigint not null,
    refused bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, job_id),
    unique (tenant_id, key_hash)
);

create table bulk_results (
    tenant_id uuid not null,
    job_id uuid not null,
    first_line bigint not null,
    last_line bigint not null,
    sealed bytea not null,
    primary key (tenant_id, job_id, first_line),
    foreign key (tenant_id, job_id) references bulk_jobs
);

create table statements (
    tenant_id uuid not null references tenants,
    statement_id uuid not null,
    content_hash bytea not null,
    identity_hash bytea not null,
    kind text not null,
    sealed bytea not null,
    imported_at timestamptz not null,
    primary key (tenant_id, statement_id),
    unique (tenant_id, identity_hash)
);

create table statement_entries (
    tenant_id uuid not null,
    statement_id uuid not null,
    entry_no integer not null,
    state text not null check (state in ('MATCHED', 'BREAK', 'RESOLVED')),
    transaction_id uuid,
    role text not null check (role in ('EXECUTION', 'RETURN', 'OTHER')),
    booked_on date not null,
    sealed bytea not null,
    primary key (tenant_id, statement_id, entry_no),
    foreign key (tenant_id, statement_id) references statements,
    foreign key (tenant_id, transaction_id) references transactions,
    check ((state = 'MATCHED') = (transaction_id is not null))
);
-- Nothing is matched twice.
create unique index statement_entries_once on statement_entries (tenant_id, transaction_id, role) where transaction_id is not null;
create index on statement_entries (tenant_id, state) where state = 'BREAK';

-- Row-level security: a tenant sees its rows; an account-level operation sees the account's own rows.
do $$
declare name text;
begin
    foreach name in array array['installed_apps', 'schemes', 'scheme_drafts', 'customers', 'financial_instruments', 'orders',
        'order_customer_defaults', 'instructions', 'instruction_events', 'payment_files', 'transactions', 'bulk_jobs',
        'bulk_results', 'statements', 'statement_entries']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I using (tenant_id = current_tenant())', name);
    end loop;
    foreach name in array array['accounts', 'tenants', 'data_keys', 'api_keys', 'nonces', 'audit_entries', 'idempotency_keys']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
    end loop;
end $$;

create policy tenancy on accounts using (account_id = current_account());
create policy tenancy on tenants
    using (account_id = current_account() and (current_tenant() is null or tenant_id = current_tenant()));
create policy tenancy on data_keys using (scope_id = coalesce(current_tenant(), current_account()));
create policy tenancy on api_keys
    using (account_id = current_account() and tenant_id is not distinct from current_tenant());
create policy tenancy on nonces using (exists (select from api_keys where api_keys.public_key = nonces.public_key));
create policy tenancy on audit_entries for select
    using (account_id = current_account() and (current_tenant() is null or tenant_id = current_tenant()));
create policy writing on audit_entries for insert
    with check (account_id is not distinct from current_account() and tenant_id is not distinct from current_tenant());
create policy tenancy on idempotency_keys using (scope_id = coalesce(current_tenant(), current_account()));

-- Begins an operation: says whose rows are in sight, and whether the key that asks is still good.
create function begin_operation(account uuid, tenant uuid, key uuid) returns text language plpgsql as $$
declare tenant_status text;
begin
    perform set_config('strongroom.account', coalesce(account::text, ''), true),
            set_config('strongroom.tenant', coalesce(tenant::text, ''), true);
    if key is null then
        return 'ok';
    end if;
    if not exists (select from api_keys where public_key = key and deleted_at is null) then
        return 'key-revoked';
    end if;
    if tenant is not null then
        select status into tenant_status from tenants where tenant_id = tenant;
        if tenant_status is distinct from 'APPROVED' then
            return 'tenant-not-approved';
        end if;
    end if;
    return 'ok';
end $$;

grant select, insert on audit_entries to strongroom_app;
grant select, insert on instruction_events, data_keys, bulk_results to strongroom_app;
grant select, insert, update on accounts, tenants, api_keys, customers, financial_instruments, orders, instructions,
    payment_files, transactions, bulk_jobs, statements, statement_entries to strongroom_app;
grant select, insert, update, delete on idempotency_keys, installed_apps, schemes, scheme_drafts,
    order_customer_defaults to strongroom_app;
grant select, insert, delete on nonces, due_work to strongroom_app;

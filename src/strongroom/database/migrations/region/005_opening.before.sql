-- Looking customers up by what is sealed, and opening what is sealed for a purpose.

-- Blind indexes have a key of their own in each tenant, which (unlike the key of ids) can be rotated.
alter table data_keys
    drop constraint data_keys_purpose_check,
    add constraint data_keys_purpose_check check (purpose in ('seal', 'index', 'search'));
alter table key_work
    drop constraint key_work_kind_check,
    add constraint key_work_kind_check check (kind in ('rewrap', 're-encrypt', 're-index', 'carry-over'));
-- What was there before there were indexes is indexed even while a rotation is under way.
drop index key_work_one_rotation;
create unique index key_work_one_rotation on key_work (scope_id) where state = 'RUNNING' and kind in ('rewrap', 're-encrypt');
create unique index key_work_one_indexing on key_work (scope_id) where state = 'RUNNING' and kind = 're-index';

-- Version of the key (4 bytes), keyed hash (16 bytes). Null: there is nothing to be found by, or it isn't indexed yet.
alter table customers add column email_index bytea;
alter table financial_instruments add column iban_index bytea;
create index customers_email on customers (tenant_id, email_index) where email_index is not null;
create index financial_instruments_iban on financial_instruments (tenant_id, iban_index) where iban_index is not null;

-- Who opened what for which purpose; the reason given is sealed. Appended to, never changed. Limits are counted here,
-- so that all processes share them.
create table openings (
    tenant_id uuid not null references tenants,
    opening_id uuid not null,
    subject_kind text not null check (subject_kind in ('customer', 'statement')),
    subject_id uuid not null,
    actor_kind text not null,
    actor_id text not null,
    purpose text not null,
    fields text[] not null,
    sealed bytea not null,
    opened_at timestamptz not null,
    primary key (tenant_id, opening_id)
);
create index on openings (tenant_id, opened_at);

-- What somebody should look at: codes, ids and numbers, never values. Appended to, never changed.
create table alerts (
    tenant_id uuid not null references tenants,
    alert_id uuid not null,
    account_id uuid not null,
    kind text not null,
    subject_kind text not null,
    subject_id text not null,
    detail text not null,
    raised_at timestamptz not null,
    primary key (tenant_id, alert_id)
);
create index on alerts (tenant_id, kind, subject_id, raised_at);
create index on alerts (account_id, alert_id);

alter table openings enable row level security;
alter table openings force row level security;
create policy tenancy on openings using (tenant_id = (select current_tenant()));
-- An account sees the alerts of all its tenants (in this region).
alter table alerts enable row level security;
alter table alerts force row level security;
create policy tenancy on alerts
    using (account_id = (select current_account())
           and ((select current_tenant()) is null or tenant_id = (select current_tenant())));

grant select, insert on openings, alerts to strongroom_app;
grant update (sealed) on openings to strongroom_app;

-- The hierarchy of keys: a scope (a tenant, or above tenants an account) has a scope key in each layer, which wraps the
-- data keys of that layer. The platform's scope keys are kept here, wrapped under the installation's root; those of the
-- customer's layer live in a holder and are only referred to.

create table scope_keys (
    scope_id uuid not null,
    layer text not null check (layer in ('platform', 'customer')),
    version integer not null check (version > 0),
    state text not null check (state in ('ACTIVE', 'RETIRING', 'DISABLED', 'DESTROYED')),
    source text not null check (source in ('kept', 'imported', 'held')),
    holder text not null,
    reference text not null,
    wrapped bytea,
    created_at timestamptz not null,
    changed_at timestamptz not null,
    expires_at timestamptz not null,
    retired_at timestamptz,
    destroy_after timestamptz,
    destroy_asked_by text,
    destroy_approved_by text,
    primary key (scope_id, layer, version),
    check ((layer = 'platform') = (wrapped is not null) or state = 'DESTROYED'),
    check (destroy_approved_by <> destroy_asked_by)
);
-- One version of a layer is in use (or would be, were it not disabled); the others are on their way out.
create unique index scope_keys_one_current on scope_keys (scope_id, layer) where state in ('ACTIVE', 'DISABLED');

-- `scope_key_version` is null where a data key is wrapped under the installation's root itself, as all were before.
alter table data_keys
    add column layer text not null default 'platform' check (layer in ('platform', 'customer')),
    add column state text not null default 'ACTIVE' check (state in ('ACTIVE', 'RETIRING', 'DESTROYED')),
    add column scope_key_version integer,
    add column expires_at timestamptz,
    drop constraint data_keys_pkey,
    add primary key (scope_id, layer, purpose, version),
    add foreign key (scope_id, layer, scope_key_version) references scope_keys;
create unique index data_keys_one_active on data_keys (scope_id, layer, purpose) where state = 'ACTIVE';

-- Counts every change of a scope's keys, so that each process notices it when its next operation begins.
create table key_epochs (
    scope_id uuid primary key,
    epoch bigint not null
);
create function count_key_change() returns trigger language plpgsql as $$
begin
    insert into key_epochs (scope_id, epoch) values (coalesce(new.scope_id, old.scope_id), 1)
    on conflict (scope_id) do update set epoch = key_epochs.epoch + 1;
    return null;
end $$;
create trigger key_change after insert or update or delete on scope_keys
    for each row execute function count_key_change();
create trigger key_change after insert or update or delete on data_keys
    for each row execute function count_key_change();

-- Work on all that a scope's keys protect: how far it has come, so that it goes on after a stop.
create table key_work (
    scope_id uuid not null,
    work_id uuid not null,
    kind text not null check (kind in ('rewrap', 're-encrypt', 'carry-over')),
    layer text not null check (layer in ('platform', 'customer')),
    version integer not null,
    state text not null check (state in ('RUNNING', 'DONE')),
    position_table text not null default '',
    position text not null default '',
    passes integer not null default 0,
    seen bigint not null default 0,
    done bigint not null default 0,
    is_clean boolean not null default true,
    drain_from timestamptz,
    started_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (scope_id, work_id)
);
-- Two rotations of a scope at once: the second is refused.
create unique index key_work_one_rotation on key_work (scope_id) where state = 'RUNNING' and kind <> 'carry-over';

-- What tells a person or an account, apart from what listings show. Null: there is nothing, or it stands in `sealed`
-- still, where it was before this.
alter table customers add column sensitive bytea;
alter table financial_instruments add column sensitive bytea;
alter table statements add column sensitive bytea;
alter table statement_entries add column sensitive bytea;

do $$
declare name text;
begin
    foreach name in array array['scope_keys', 'key_epochs', 'key_work']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I using (scope_id = coalesce(current_tenant(), current_account()))', name);
    end loop;
end $$;

-- As begin_operation; adds the scope's key epoch (0: its keys have never changed): 'ok 12'.
create function enter_operation(account uuid, tenant uuid, key uuid) returns text language plpgsql as $$
declare verdict text := begin_operation(account, tenant, key);
begin
    return verdict || ' ' || coalesce((select epoch from key_epochs where scope_id = coalesce(tenant, account)), 0);
end $$;

grant select, insert, update on scope_keys, key_epochs, key_work to strongroom_app;
grant update (wrapped, state, scope_key_version) on data_keys to strongroom_app;
grant update (sealed) on bulk_results to strongroom_app;

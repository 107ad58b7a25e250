-- Work on the keys of many scopes in one transaction and one exchange. Each scope is entered in turn, so row-level
-- security holds for every row that is read or written. Places are numbers in the arrays, from 1.

create function epochs_of(accounts uuid[], tenants uuid[]) returns setof key_epochs language plpgsql as $$
begin
    for place in 1..cardinality(accounts) loop
        perform begin_operation(accounts[place], tenants[place], null);
        return query select * from key_epochs where scope_id = coalesce(tenants[place], accounts[place]);
    end loop;
end $$;

create function scope_keys_of(accounts uuid[], tenants uuid[]) returns setof scope_keys language plpgsql as $$
begin
    for place in 1..cardinality(accounts) loop
        perform begin_operation(accounts[place], tenants[place], null);
        return query select * from scope_keys where scope_id = coalesce(tenants[place], accounts[place])
            order by layer, version;
    end loop;
end $$;

create function data_keys_of(accounts uuid[], tenants uuid[]) returns setof data_keys language plpgsql as $$
begin
    for place in 1..cardinality(accounts) loop
        perform begin_operation(accounts[place], tenants[place], null);
        return query select * from data_keys where scope_id = coalesce(tenants[place], accounts[place])
            order by layer, purpose, version;
    end loop;
end $$;

-- Which scopes have something to be done about their keys, and the holder that their customer's layer needs.
create function scopes_to_tend(accounts uuid[], tenants uuid[], at timestamptz, retired_until timestamptz)
returns table (place integer, holder text) language plpgsql as $$
declare whose uuid;
begin
    for number in 1..cardinality(accounts) loop
        perform begin_operation(accounts[number], tenants[number], null);
        whose := coalesce(tenants[number], accounts[number]);
        if exists (select from key_work w where w.scope_id = whose and w.state = 'RUNNING')
            or tenants[number] is not null
                and not exists (select from key_work w where w.scope_id = whose and w.kind = 'carry-over')
            or exists (select from scope_keys k where k.scope_id = whose
                       and (k.state <> 'DESTROYED' and k.destroy_after <= at
                            or k.state = 'RETIRING' and k.retired_at <= retired_until))
        then
            return query select number, coalesce(
                (select k.holder from scope_keys k where k.scope_id = whose and k.layer = 'customer'
                 order by k.version desc limit 1), '');
        end if;
    end loop;
end $$;

-- Put new scope keys in the place of those in use, with the data keys of their layer already wrapped under them.
-- A scope is left out, and not waited for, when its keys have changed since they were read (`epochs`), when somebody
-- is changing them, or while a rotation of them is under way. Gives the places that were done.
create function renew_scope_keys(
    accounts uuid[], tenants uuid[], epochs bigint[], layer_renewed text, versions integer[], holder_named text,
    references_made text[], wrappings bytea[], works uuid[],
    data_places integer[], data_purposes text[], data_versions integer[], data_wrappings bytea[],
    at timestamptz, until timestamptz, actor_kind text, actor_id text
) returns setof integer language plpgsql as $$
declare
    whose uuid;
    count_wrapped bigint;
    told text;
begin
    for place in 1..cardinality(accounts) loop
        perform begin_operation(accounts[place], tenants[place], null);
        whose := coalesce(tenants[place], accounts[place]);
        continue when not pg_try_advisory_xact_lock(hashtextextended(replace(whose::text, '-', ''), 0));
        perform from key_epochs e where e.scope_id = whose and e.epoch = epochs[place] for update skip locked;
        continue when not found;
        perform from key_work w
            where w.scope_id = whose and w.state = 'RUNNING' and w.kind in ('rewrap', 're-encrypt');
        continue when found;

        update scope_keys k set state = 'RETIRING', changed_at = at, retired_at = at
            where k.scope_id = whose and k.layer = layer_renewed
            and (k.state = 'ACTIVE' or k.state = 'RETIRING' and k.retired_at is null);
        insert into scope_keys (scope_id, layer, version, state, source, holder, reference, wrapped, created_at,
                                changed_at, expires_at)
            values (whose, layer_renewed, versions[place], 'ACTIVE', 'kept', holder_named, references_made[place],
                    nullif(wrappings[place], ''), at, at, until);
        update data_keys d set wrapped = u.wrapped, scope_key_version = versions[place]
            from unnest(data_places, data_purposes, data_versions, data_wrappings)
                as u(owner, purpose, version, wrapped)
            where u.owner = place and d.scope_id = whose and d.layer = layer_renewed
            and d.purpose = u.purpose and d.version = u.version;
        get diagnostics count_wrapped = row_count;
        insert into key_work (scope_id, work_id, kind, layer, version, state, seen, done, started_at, updated_at)
            values (whose, works[place], 'rewrap', layer_renewed, versions[place], 'DONE', count_wrapped,
                    count_wrapped, at, at);
        told := layer_renewed || ' version=' || versions[place];
        insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id, action, subject_kind, subject_id,
                                   outcome, detail, correlation_id)
            values (at, accounts[place], tenants[place], actor_kind, actor_id, 'key.rotate', 'key', whose, 'done',
                    told || ' source=kept', ''),
                   (at, accounts[place], tenants[place], actor_kind, actor_id, 'key.rotated', 'key', whose, 'done',
                    'rewrap ' || told, '');
        return next place;
    end loop;
end $$;

-- The platform's scope keys under another version of the root key, each by compare and swap. Gives how many.
create function rewrap_scope_keys(
    accounts uuid[], tenants uuid[], versions integer[], old bytea[], fresh bytea[],
    root_version integer, at timestamptz, actor_kind text, actor_id text
) returns integer language plpgsql as $$
declare
    whose uuid;
    done integer := 0;
begin
    for place in 1..cardinality(accounts) loop
        perform begin_operation(accounts[place], tenants[place], null);
        whose := coalesce(tenants[place], accounts[place]);
        update scope_keys k set wrapped = fresh[place]
            where k.scope_id = whose and k.layer = 'platform' and k.version = versions[place]
            and k.wrapped = old[place];
        continue when not found;
        insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id, action, subject_kind, subject_id,
                                   outcome, detail, correlation_id)
            values (at, accounts[place], tenants[place], actor_kind, actor_id, 'key.rewrap-under-root', 'key', whose,
                    'done', 'root=' || root_version, '');
        done := done + 1;
    end loop;
    return done;
end $$;

-- Requests that do their work in several operations. `attempt` is whoever has the key now: an operation that makes the
-- change says so here (`carried_out`) as that attempt, and fails once another has taken the key over.
alter table idempotency_keys
    add column attempt uuid,
    add column carried_out boolean not null default false;

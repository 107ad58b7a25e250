-- A secret for each customer, kept outside the database, without which what is sealed of them can't be opened.

-- Which runs of secrets have been handed out, over all tenants of the region.
create sequence person_runs as bigint minvalue 0;
-- The number of a customer's secret. Null: nothing of theirs is sealed with one.
alter table customers add column person bigint;
create unique index customers_person on customers (tenant_id, person) where person is not null;

-- Secrets that are to be destroyed, written down with the change that forgets their customer; and those that are.
create table ended_persons (
    tenant_id uuid not null references tenants,
    person bigint not null,
    asked_at timestamptz not null,
    ended_at timestamptz,
    primary key (tenant_id, person)
);
create index ended_persons_due on ended_persons (tenant_id) where ended_at is null;

alter table key_work
    drop constraint key_work_kind_check,
    add constraint key_work_kind_check
        check (kind in ('rewrap', 're-encrypt', 're-index', 'carry-over', 'part-persons'));
create unique index key_work_one_parting on key_work (scope_id) where kind = 'part-persons';

alter table ended_persons enable row level security;
alter table ended_persons force row level security;
create policy tenancy on ended_persons using (tenant_id = (select current_tenant()));

grant usage on sequence person_runs to strongroom_app;
grant select, insert on ended_persons to strongroom_app;
grant update (ended_at) on ended_persons to strongroom_app;

-- As before, with persons: which scopes have something to be done about their keys, and the holder that their customer's layer needs.
-- `again`: also those with persons whose secrets have been destroyed already.
drop function scopes_to_tend(uuid[], uuid[], timestamptz, timestamptz);
create function scopes_to_tend(
    accounts uuid[], tenants uuid[], at timestamptz, retired_until timestamptz, again boolean
)
returns table (place integer, holder text) language plpgsql as $$
declare whose uuid;
begin
    for number in 1..cardinality(accounts) loop
        perform begin_operation(accounts[number], tenants[number], null);
        whose := coalesce(tenants[number], accounts[number]);
        if exists (select from key_work w where w.scope_id = whose and w.state = 'RUNNING')
            or tenants[number] is not null
                and (select count(*) from key_work w
                     where w.scope_id = whose and w.kind in ('carry-over', 'part-persons')) < 2
            or exists (select from ended_persons p where p.tenant_id = whose and (again or p.ended_at is null))
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

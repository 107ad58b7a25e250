-- Keys whose cryptoperiod is over: scopes that have some are tended, too.
-- A key that only its owner can replace is told of, again after 30 days (`vault.overdue.TOLD_AGAIN_AFTER`).

-- The customer's layer has nothing due while its key is disabled or to be destroyed: then nothing can be rotated.
create function has_cryptoperiod_over(whose uuid, at timestamptz) returns boolean language sql stable as $$
    select exists (
        select from scope_keys k where k.scope_id = whose and k.state = 'ACTIVE' and k.destroy_asked_by is null
        and (k.expires_at <= at and (k.source = 'kept' or not exists (
                 select from alerts a where a.tenant_id = whose and a.kind = 'key.overdue'
                 and a.subject_id = whose::text and a.raised_at > at - interval '30 days'))
             or exists (select from data_keys d
                        where d.scope_id = whose and d.layer = k.layer and d.state = 'ACTIVE'
                        and d.purpose <> 'index' and d.expires_at <= at)))
$$;

-- As before, with those.
create or replace function scopes_to_tend(
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
            or has_cryptoperiod_over(whose, at)
        then
            return query select number, coalesce(
                (select k.holder from scope_keys k where k.scope_id = whose and k.layer = 'customer'
                 order by k.version desc limit 1), '');
        end if;
    end loop;
end $$;

-- Who made a key, who made the key that made it, and so on, up to a person or the installation's operator.
alter table api_keys add column made_by text[] not null default '{}';

-- What somebody whose role has a ceiling made on one day: an amount for each currency, sealed. The row is the lock.
create table day_totals (
    tenant_id uuid not null,
    total_id uuid not null,
    day date not null,
    sealed bytea not null,
    primary key (tenant_id, total_id)
);

-- Which payouts wait for approval. Made and ended, never changed; processes remember a tenant's for as long as its epoch.
create table approval_rules (
    scope_id uuid not null,
    rule_id uuid not null,
    definition jsonb not null,
    made_at timestamptz not null,
    ended_at timestamptz,
    primary key (scope_id, rule_id)
);
create trigger key_change after insert or update or delete on approval_rules
    for each row execute function count_key_change();

-- What is kept of an instruction in a tenant with such rules. `authors` made it or changed it; `makers` made their keys,
-- and those that made them. A change begins another version.
create table approvals (
    tenant_id uuid not null,
    order_id uuid not null,
    instruction_id uuid not null,
    batch_id uuid,
    version integer not null default 1,
    content_hash bytea not null,
    state text not null check (state in ('NOT_NEEDED', 'PENDING', 'APPROVED', 'REJECTED', 'EXPIRED', 'CANCELLED')),
    needed integer not null check (needed >= 0),
    authors text[] not null,
    makers text[] not null,
    created_at timestamptz not null,
    expires_at timestamptz,
    ended_at timestamptz,
    primary key (tenant_id, order_id, instruction_id),
    foreign key (tenant_id, order_id, instruction_id) references instructions,
    check ((state = 'NOT_NEEDED') = (needed = 0)),
    check ((needed = 0) = (expires_at is null))
);
create index approvals_pending on approvals (tenant_id, expires_at) where state = 'PENDING';
create index approvals_of_batch on approvals (tenant_id, batch_id) where state = 'PENDING';

create table approval_votes (
    tenant_id uuid not null,
    order_id uuid not null,
    instruction_id uuid not null,
    version integer not null,
    approver text not null,
    makers text[] not null,
    verdict text not null check (verdict in ('APPROVE', 'REJECT')),
    content_hash bytea not null,
    at timestamptz not null,
    primary key (tenant_id, order_id, instruction_id, version, approver),
    foreign key (tenant_id, order_id, instruction_id) references approvals
);

-- Whether somebody who acts by keys of these makers has no part in what those authors made: not by their own key, nor by
-- one that made the other's, nor as the same person behind both.
create function is_independent(approver text, approver_makers text[], authors text[], author_makers text[])
returns boolean language sql immutable
return not (
    approver = any (authors || author_makers)
    or approver_makers && authors
    or exists (select from unnest(approver_makers) as maker where maker like 'person:%' and maker = any (author_makers))
);

create function check_vote() returns trigger language plpgsql as $$
begin
    if not exists (
        select from approvals a
        where (a.tenant_id, a.order_id, a.instruction_id) = (new.tenant_id, new.order_id, new.instruction_id)
          and a.version = new.version and a.content_hash = new.content_hash and a.state = 'PENDING'
          and a.expires_at > new.at
          and (new.verdict = 'REJECT' or is_independent(new.approver, new.makers, a.authors, a.makers)))
    then
        raise exception 'nobody approves what is their own, is over, or has changed' using errcode = 'check_violation';
    end if;
    return null;
end $$;
create trigger vote after insert on approval_votes for each row execute function check_vote();

-- Nothing that awaits approval goes on without it, whoever writes.
create function check_approved() returns trigger language plpgsql as $$
begin
    if not exists (
        select from approvals a
        where (a.tenant_id, a.order_id, a.instruction_id) = (new.tenant_id, new.order_id, new.instruction_id)
          and (a.state = 'NOT_NEEDED' or a.state = 'APPROVED' and a.needed <= (
                select count(*) from approval_votes v
                where (v.tenant_id, v.order_id, v.instruction_id) = (a.tenant_id, a.order_id, a.instruction_id)
                  and v.version = a.version and v.content_hash = a.content_hash and v.verdict = 'APPROVE')))
    then
        raise exception 'the instruction awaits approval' using errcode = 'check_violation';
    end if;
    return null;
end $$;
create trigger approved after update of status on instructions for each row
    when (old.status = 'AWAITING_APPROVAL' and new.status not in ('AWAITING_APPROVAL', 'INCOMPLETE', 'CANCELLED'))
    execute function check_approved();

do $$
declare name text;
begin
    foreach name in array array['day_totals', 'approvals', 'approval_votes']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I using (tenant_id = (select current_tenant()))', name);
    end loop;
end $$;
alter table approval_rules enable row level security;
alter table approval_rules force row level security;
create policy tenancy on approval_rules using (scope_id = (select current_tenant()));

grant select, insert, update, delete on day_totals to strongroom_app;
grant select, insert, update on approval_rules, approvals to strongroom_app;
grant select, insert on approval_votes to strongroom_app;

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

do $$
declare name text;
begin
    foreach name in array array['day_totals']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I using (tenant_id = (select current_tenant()))', name);
    end loop;
end $$;

grant select, insert, update on day_totals to strongroom_app;

-- From where a tenant's (or above tenants an account's) keys and people may come.
create table ip_lists (
    scope_id uuid primary key,
    is_enabled boolean not null,
    -- Ranges `first-last`, both included, that are enforced. Null: from anywhere.
    api text[],
    portal text[],
    sealed bytea not null,
    updated_at timestamptz not null
);
alter table ip_lists enable row level security;
alter table ip_lists force row level security;
create policy tenancy on ip_lists using (scope_id = coalesce(current_tenant(), current_account()));

-- Processes remember a list for as long as the scope's epoch stays, as they do with its keys.
create trigger key_change after insert or update or delete on ip_lists
    for each row execute function count_key_change();

grant select, insert, update on ip_lists to strongroom_app;

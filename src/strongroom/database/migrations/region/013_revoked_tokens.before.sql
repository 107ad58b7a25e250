-- Access tokens that were revoked before their end (RFC 7009), until that end.
create table revoked_tokens (
    scope_id uuid not null,
    token_id uuid not null,
    expires_at timestamptz not null,
    primary key (scope_id, token_id)
);
alter table revoked_tokens enable row level security;
alter table revoked_tokens force row level security;
create policy tenancy on revoked_tokens using (scope_id = coalesce(current_tenant(), current_account()));

-- Processes remember which tokens are revoked for as long as the scope's epoch stays, as they do with its IP list.
create trigger key_change after insert on revoked_tokens for each row execute function count_key_change();

grant select, insert, delete on revoked_tokens to strongroom_app;

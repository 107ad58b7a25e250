-- The directory finds the region of an account, a tenant or a key, and holds nothing else: no personal data.
create table accounts (
    account_id uuid primary key,
    region text not null
);

create table tenants (
    tenant_id uuid primary key,
    account_id uuid not null references accounts,
    region text not null
);
create index on tenants (account_id);
create index on tenants (region);

create table api_keys (
    public_key uuid primary key,
    environment text not null check (environment in ('sandbox', 'production')),
    account_id uuid not null references accounts,
    tenant_id uuid references tenants,
    region text not null
);

-- The last evidence of every control (promises ACC-1 to PAY-4).
create table evidence (
    control_id text not null,
    checked_at timestamptz not null,
    verdict text not null check (verdict in ('green', 'red')),
    figure text not null,
    primary key (control_id, checked_at)
);

grant select, insert, delete on accounts, tenants, api_keys to strongroom_app;
grant select, insert on evidence to strongroom_app;

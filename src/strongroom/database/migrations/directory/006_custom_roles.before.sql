-- Roles that accounts made themselves, and what they let nobody hold together. An account's keys act in every region, so
-- their roles are asked for here. Names of roles are short codes, never about a person.

-- A change is another version; a version without a definition is the role's end, and its name is never given again.
create table custom_roles (
    account_id uuid not null references accounts,
    role text not null check (role ~ '^[a-z0-9][a-z0-9-]{0,39}$'),
    version integer not null check (version > 0),
    definition jsonb,
    made_at timestamptz not null,
    primary key (account_id, role, version)
);

-- Pairs of permissions, where an account says otherwise than the product.
create table role_conflicts (
    account_id uuid primary key references accounts,
    pairs jsonb not null,
    updated_at timestamptz not null
);

-- Who made a key, who made the key that made it, and so on: nobody approves by another key of theirs what they did.
alter table api_keys add column made_by text[] not null default '{}';

grant select, insert on custom_roles to strongroom_app;
grant select, insert, update on role_conflicts to strongroom_app;

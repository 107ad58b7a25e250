-- People: an account's own, in its home region and nowhere else. Names and addresses are in `sealed` columns; to find
-- somebody by address there is the account's keyed hash of it. `for_tenant` says for which of the account's tenants
-- something is meant (null: for the account itself): the tenant may live in another region, the row stays with the
-- account.

-- The only way in. What the link is bound to (address, tenant, roles, end) is in `binding`, keyed; the link's own secret
-- is here as a hash. An invitation past `expires_at` has expired, whatever its state says.
create table invitations (
    account_id uuid not null,
    invitation_id uuid not null,
    person_id uuid not null,
    for_tenant uuid,
    roles text[] not null check (cardinality(roles) > 0),
    state text not null check (state in ('INVITED', 'ACCEPTED', 'REVOKED')),
    address_hash bytea not null,
    secret_hash bytea not null,
    binding bytea not null,
    sealed bytea not null,
    invited_by text not null,
    created_at timestamptz not null,
    expires_at timestamptz not null,
    answered_at timestamptz,
    primary key (account_id, invitation_id),
    unique (account_id, invitation_id, person_id),
    unique (account_id, person_id),
    check ((state = 'INVITED') = (answered_at is null))
);
create unique index invitations_one_open on invitations (account_id, address_hash) where state = 'INVITED';

-- Nobody is here without an invitation of theirs, which the trigger below wants accepted.
create table persons (
    account_id uuid not null,
    person_id uuid not null,
    invitation_id uuid not null,
    state text not null check (state in ('ACTIVE', 'REMOVED')),
    address_hash bytea not null,
    sealed bytea not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    removed_at timestamptz,
    primary key (account_id, person_id),
    foreign key (account_id, invitation_id, person_id) references invitations (account_id, invitation_id, person_id),
    check ((state = 'REMOVED') = (removed_at is not null))
);
create unique index persons_one_by_address on persons (account_id, address_hash) where state = 'ACTIVE';

create function check_person_is_invited() returns trigger language plpgsql as $$
begin
    if not exists (select from invitations
                   where account_id = new.account_id and invitation_id = new.invitation_id and state = 'ACCEPTED') then
        raise exception 'a person needs an accepted invitation' using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;
create trigger invited after insert on persons for each row execute function check_person_is_invited();

-- Who holds which role where, from when to when; a grant that ends stays in the record.
create table grants (
    account_id uuid not null,
    grant_id uuid not null,
    person_id uuid not null,
    for_tenant uuid,
    role text not null,
    granted_by text not null,
    granted_at timestamptz not null,
    ended_by text,
    ended_at timestamptz,
    primary key (account_id, grant_id),
    foreign key (account_id, person_id) references persons,
    check ((ended_by is null) = (ended_at is null))
);
create unique index grants_once on grants (account_id, person_id, role, for_tenant) nulls not distinct
    where ended_at is null;

-- What a person proves themselves with. `lookup` finds a passkey; `counter` is a passkey's signature counter, or the
-- last step of a time-based code that was taken, so that none is taken twice.
create table credentials (
    account_id uuid not null,
    credential_id uuid not null,
    person_id uuid not null,
    kind text not null check (kind in ('PASSWORD', 'TOTP', 'PASSKEY')),
    lookup bytea,
    counter bigint not null default 0,
    sealed bytea not null,
    created_at timestamptz not null,
    used_at timestamptz,
    primary key (account_id, credential_id),
    foreign key (account_id, person_id) references persons,
    check ((kind = 'PASSKEY') = (lookup is not null))
);
create unique index credentials_one_of_a_kind on credentials (account_id, person_id, kind) where kind <> 'PASSKEY';
create unique index credentials_lookup on credentials (account_id, lookup) where lookup is not null;

create table recovery_codes (
    account_id uuid not null,
    person_id uuid not null,
    code_hash bytea not null,
    used_at timestamptz,
    primary key (account_id, person_id, code_hash),
    foreign key (account_id, person_id) references persons
);

create table devices (
    account_id uuid not null,
    device_id uuid not null,
    person_id uuid not null,
    sealed bytea not null,
    first_seen_at timestamptz not null,
    seen_at timestamptz not null,
    primary key (account_id, device_id),
    foreign key (account_id, person_id) references persons
);
create index on devices (account_id, person_id);

-- What a browser's cookie says is here as a hash only. `proven_at`: when the person last proved who they are; `is_due`:
-- what they may do was changed, so that the session goes on under another id.
create table sessions (
    account_id uuid not null,
    session_id uuid not null,
    person_id uuid not null,
    session_hash bytea not null,
    stage text not null check (stage in ('SECOND_FACTOR', 'SIGNED_IN')),
    method text not null,
    is_due boolean not null default false,
    sealed bytea not null,
    created_at timestamptz not null,
    proven_at timestamptz not null,
    seen_at timestamptz not null,
    expires_at timestamptz not null,
    ended_at timestamptz,
    primary key (account_id, session_id),
    unique (account_id, session_hash),
    foreign key (account_id, person_id) references persons
);
create index on sessions (account_id, person_id) where ended_at is null;
create index on sessions (account_id, expires_at);

-- How long sessions last, where an account says otherwise than the default.
create table session_settings (
    account_id uuid primary key,
    idle_s integer not null check (idle_s between 60 and 86400),
    lifetime_s integer not null check (lifetime_s between 300 and 604800),
    updated_at timestamptz not null
);

-- Letters to be sent, with all that is in them sealed; gone once they are on their way. `due_mails` tells the worker,
-- before it knows an account: ids and instants only, so it stands outside tenancy.
create table mails (
    account_id uuid not null,
    mail_id uuid not null,
    kind text not null,
    attempts integer not null default 0,
    sealed bytea not null,
    created_at timestamptz not null,
    primary key (account_id, mail_id)
);
create table due_mails (
    account_id uuid not null,
    mail_id uuid not null,
    due_at timestamptz not null,
    primary key (account_id, mail_id)
);
create index on due_mails (due_at);

do $$
declare name text;
begin
    foreach name in array array['invitations', 'persons', 'grants', 'credentials', 'recovery_codes', 'devices',
        'sessions', 'session_settings', 'mails']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I '
                       'using (account_id = (select current_account()) and (select current_tenant()) is null)', name);
    end loop;
end $$;

grant select, insert, update on invitations, persons, grants, session_settings to strongroom_app;
grant select, insert, update, delete on credentials, recovery_codes, devices, sessions, mails, due_mails
    to strongroom_app;

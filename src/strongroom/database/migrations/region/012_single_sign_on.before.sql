-- Single sign-on: an account's own provider, the mail domains that are proven to be the account's, and who came in by
-- them. All of it is the account's, in its home region.

-- `version_id` is another one after every change: what processes remember of a provider, they remember for that one.
create table single_sign_ons (
    account_id uuid primary key,
    version_id uuid not null,
    kind text not null check (kind in ('OIDC', 'SAML')),
    is_enabled boolean not null,
    is_enforced boolean not null,
    makes_persons boolean not null,
    break_glass_id uuid,
    sealed bytea not null,
    updated_at timestamptz not null,
    foreign key (account_id, break_glass_id) references persons,
    check (not is_enforced or (is_enabled and break_glass_id is not null))
);

-- The domain's name is sealed; `domain_hash` is the account's keyed hash of it.
create table email_domains (
    account_id uuid not null,
    domain_id uuid not null,
    domain_hash bytea not null,
    state text not null check (state in ('PENDING', 'VERIFIED')),
    sealed bytea not null,
    created_at timestamptz not null,
    verified_at timestamptz,
    primary key (account_id, domain_id),
    unique (account_id, domain_hash),
    check ((state = 'VERIFIED') = (verified_at is not null))
);

-- The other way in, beside an accepted invitation: a sign-in that the account's provider vouched for, of somebody of a
-- verified domain, while the account let such people in.
create table admissions (
    account_id uuid not null,
    admission_id uuid not null,
    person_id uuid not null,
    domain_id uuid not null,
    admitted_at timestamptz not null,
    primary key (account_id, admission_id),
    unique (account_id, admission_id, person_id),
    unique (account_id, person_id)
);

create function check_admission() returns trigger language plpgsql as $$
begin
    if not exists (select from single_sign_ons
                   where account_id = new.account_id and is_enabled and makes_persons)
       or not exists (select from email_domains
                      where account_id = new.account_id and domain_id = new.domain_id and state = 'VERIFIED') then
        raise exception 'an admission needs a provider that may admit, and a verified domain'
            using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;
create trigger admitted after insert on admissions for each row execute function check_admission();

alter table persons
    alter column invitation_id drop not null,
    add column admission_id uuid,
    add foreign key (account_id, admission_id, person_id) references admissions (account_id, admission_id, person_id),
    add check (num_nonnulls(invitation_id, admission_id) = 1);

-- Nobody is here without an accepted invitation of theirs, or an admission.
create or replace function check_person_is_invited() returns trigger language plpgsql as $$
begin
    if new.admission_id is null and not exists (
            select from invitations
            where account_id = new.account_id and invitation_id = new.invitation_id and state = 'ACCEPTED') then
        raise exception 'a person needs an accepted invitation' using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;

-- Whom the provider means by which subject of its own.
create table provider_subjects (
    account_id uuid not null,
    subject_hash bytea not null,
    person_id uuid not null,
    linked_at timestamptz not null,
    primary key (account_id, subject_hash),
    unique (account_id, person_id),
    foreign key (account_id, person_id) references persons
);

-- Sign-ins under way. `browser_hash`: of the secret in the cookie of the browser that began it; null where the provider
-- began it. `answered_at`: the provider's answer was checked, and waits in `sealed` for the browser to come back.
create table sign_in_requests (
    account_id uuid not null,
    request_id uuid not null,
    browser_hash bytea,
    sealed bytea not null,
    answered_at timestamptz,
    expires_at timestamptz not null,
    primary key (account_id, request_id)
);

-- Assertions and logout tokens that were taken, until they would be too old anyway: none is taken twice.
create table spent_assertions (
    account_id uuid not null,
    assertion_hash bytea not null,
    expires_at timestamptz not null,
    primary key (account_id, assertion_hash)
);

-- The provider's own session that a session came from, hashed: the provider can end it.
alter table sessions add column provider_session bytea;
create index on sessions (account_id, provider_session) where provider_session is not null and ended_at is null;

do $$
declare name text;
begin
    foreach name in array array['single_sign_ons', 'email_domains', 'admissions', 'provider_subjects',
        'sign_in_requests', 'spent_assertions']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I '
                       'using (account_id = (select current_account()) and (select current_tenant()) is null)', name);
    end loop;
end $$;

grant select, insert on admissions to strongroom_app;
grant select, insert, update, delete on single_sign_ons, email_domains, provider_subjects, sign_in_requests,
    spent_assertions to strongroom_app;

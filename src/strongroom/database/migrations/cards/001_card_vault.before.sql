-- The card vault's own database, which no other process can reach. Every row belongs to a tenant; row-level security is
-- enabled and forced; strongroom_cards owns nothing. Card numbers are in `number_sealed` alone, which is opened only to
-- fill a request to a provider or to hand a card over to another vault.

create function current_tenant() returns uuid language sql stable
    return nullif(current_setting('strongroom.tenant', true), '')::uuid;

create table card_keys (
    tenant_id uuid not null,
    purpose text not null check (purpose in ('seal', 'fingerprint')),
    version integer not null check (version > 0),
    wrapped bytea not null,
    created_at timestamptz not null,
    primary key (tenant_id, purpose, version)
);

-- What a hosted form shows instead of an access token. Found by the hash of its secret, before a tenant is known.
create table card_sessions (
    session_hash bytea primary key,
    tenant_id uuid not null,
    customer text not null,
    attempts integer not null default 0,
    used_at timestamptz,
    expires_at timestamptz not null
);
create index on card_sessions (expires_at);

-- IMPORTING: handed over by another vault, and not to be used before all of its file is here.
create table cards (
    tenant_id uuid not null,
    token text not null,
    status text not null check (status in ('ACTIVE', 'IMPORTING', 'FORGOTTEN')),
    brand text not null,
    customer text not null,
    fingerprint bytea not null,
    number_sealed bytea not null,
    shown_sealed bytea not null,
    transfer_id uuid,
    created_at timestamptz not null,
    primary key (tenant_id, token)
);
create index on cards (tenant_id, customer) where customer <> '';

-- Requests to providers, under the keyed hash of their reference. INTENDED: written before anything is sent (first
-- beat).
create table forwards (
    tenant_id uuid not null,
    forward_id bytea not null,
    token text not null,
    destination text not null,
    request_hash bytea not null,
    state text not null check (state in ('INTENDED', 'ANSWERED', 'NOT_SENT', 'UNCONFIRMED')),
    code text not null default '',
    status integer,
    answer_sealed bytea not null default '',
    claimed_until timestamptz not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, forward_id),
    foreign key (tenant_id, token) references cards
);
create index on forwards (tenant_id, created_at);

-- Moving a tenant's cards to another vault, or in from one. `chain` is the hash of everything handed over so far.
create table transfers (
    tenant_id uuid not null,
    transfer_id uuid not null,
    kind text not null check (kind in ('EXPORT', 'IMPORT')),
    state text not null check (state in ('REQUESTED', 'APPROVED', 'COMPLETED', 'FAILED', 'CANCELLED')),
    requested_by text not null,
    approved_by text not null default '',
    receiver_key text not null,
    expected_chain bytea not null default '',
    expected_count integer not null default 0,
    chain bytea not null default '',
    parts integer not null default 0,
    cards integer not null default 0,
    last_token text not null default '',
    failure text not null default '',
    approved_at timestamptz,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    primary key (tenant_id, transfer_id),
    check (state in ('REQUESTED', 'CANCELLED') or approved_by <> ''),
    check (approved_by <> requested_by)
);

-- Parts, by the hash of their bytes. Those of exports are kept, readable by the receiver alone, so that a part that is
-- asked for again is the same one.
create table transfer_parts (
    tenant_id uuid not null,
    transfer_id uuid not null,
    part_no integer not null check (part_no > 0),
    digest bytea not null,
    content_sealed bytea not null,
    primary key (tenant_id, transfer_id, part_no),
    foreign key (tenant_id, transfer_id) references transfers
);

-- What happened to cards: codes, never values. Appended to, never changed.
create table card_events (
    event_id bigint generated always as identity primary key,
    at timestamptz not null,
    tenant_id uuid not null,
    actor text not null,
    action text not null,
    outcome text not null check (outcome in ('done', 'refused', 'unknown')),
    token text not null,
    detail text not null,
    correlation_id text not null
);
create index on card_events (tenant_id, event_id);

do $$
declare name text;
begin
    foreach name in array array['card_keys', 'cards', 'forwards', 'transfers', 'transfer_parts', 'card_events']
    loop
        execute format('alter table %I enable row level security', name);
        execute format('alter table %I force row level security', name);
        execute format('create policy tenancy on %I using (tenant_id = current_tenant())', name);
    end loop;
end $$;

grant select, insert on card_keys, card_events to strongroom_cards;
grant select, insert, update, delete on card_sessions, cards to strongroom_cards;
grant select, insert, update, delete on forwards to strongroom_cards;
grant select, insert, update on transfers to strongroom_cards;
grant select, insert, delete on transfer_parts to strongroom_cards;

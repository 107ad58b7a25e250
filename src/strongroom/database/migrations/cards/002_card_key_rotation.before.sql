-- The card vault's keys are rotated. RETIRING: seals nothing any more, still opens. DESTROYED: its wrapped key is gone.
alter table card_keys
    add state text not null default 'ACTIVE' check (state in ('ACTIVE', 'RETIRING', 'DESTROYED')),
    add retired_at timestamptz,
    add destroyed_at timestamptz,
    add check ((state = 'DESTROYED') = (wrapped = ''));
create unique index card_keys_one_active on card_keys (tenant_id, purpose) where state = 'ACTIVE';

-- Which version of the fingerprint key made a card's fingerprint, and a forward's id and hash.
alter table cards add fingerprint_version integer not null default 1;
alter table forwards add hash_version integer not null default 1;

-- What an answer's envelope is bound to: the caller's reference, which isn't written anywhere, so that such an answer
-- can't be sealed again; or, from now on, the forward's id.
alter table forwards add answer_by text not null default 'reference' check (answer_by in ('reference', 'id'));

-- Which tenants have keys here: who wraps all of them again must not miss one. Ids, and nothing else.
create table card_tenants (tenant_id uuid primary key);

create function note_card_tenant() returns trigger language plpgsql as $$
begin
    insert into card_tenants (tenant_id) values (new.tenant_id) on conflict do nothing;
    return new;
end $$;
create trigger note_card_tenant after insert on card_keys for each row execute function note_card_tenant();

alter table card_keys no force row level security;
insert into card_tenants select distinct tenant_id from card_keys;
alter table card_keys force row level security;

grant update (wrapped, state, retired_at, destroyed_at) on card_keys to strongroom_cards;
grant select, insert on card_tenants to strongroom_cards;

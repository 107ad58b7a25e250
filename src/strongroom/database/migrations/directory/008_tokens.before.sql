-- Access tokens of accounts' keys that were revoked before their end: their operations reach into every region.
create table revoked_tokens (
    public_key uuid not null references api_keys on delete cascade,
    token_id uuid not null,
    expires_at timestamptz not null,
    primary key (public_key, token_id)
);

-- What keys with a limit of requests a minute have left, as token buckets.
create table key_rates (
    public_key uuid primary key references api_keys on delete cascade,
    left_over double precision not null,
    filled_at timestamptz not null
);

-- Takes up to `wanted` requests out of a key's bucket, which holds a minute's worth and fills evenly.
create function take_requests(key uuid, per_minute integer, wanted integer, now_is timestamptz) returns integer
language plpgsql as $$
declare
    bucket key_rates;
    available double precision;
    taken integer;
begin
    insert into key_rates (public_key, left_over, filled_at) values (key, per_minute, now_is) on conflict do nothing;
    select * into bucket from key_rates where public_key = key for update;
    available := least(
        per_minute,
        bucket.left_over + per_minute / 60.0 * greatest(0, extract(epoch from now_is - bucket.filled_at))
    );
    taken := least(wanted, floor(available));
    update key_rates set left_over = available - taken, filled_at = greatest(bucket.filled_at, now_is)
    where public_key = key;
    return taken;
end $$;

grant select, insert, delete on revoked_tokens to strongroom_app;
grant select, insert, update on key_rates to strongroom_app;

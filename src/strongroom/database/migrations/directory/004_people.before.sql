-- Which accounts a sign-in address may belong to, by a keyed hash of it: the directory knows nobody.
create table sign_in_addresses (
    address_hash bytea not null,
    account_id uuid not null references accounts,
    primary key (address_hash, account_id)
);

-- Failed attempts to sign in, by a keyed hash of the address together with where the attempt came from; counted for
-- addresses that nobody has just the same. They are forgotten when `expires_at` has passed.
create table sign_in_failures (
    subject_hash bytea primary key,
    failures integer not null,
    expires_at timestamptz not null
);
create index on sign_in_failures (expires_at);

-- Challenges for passkeys that were given out and not answered yet: each is answered once.
create table passkey_challenges (
    challenge_hash bytea primary key,
    expires_at timestamptz not null
);
create index on passkey_challenges (expires_at);

grant select, insert, delete on sign_in_addresses, passkey_challenges to strongroom_app;
grant select, insert, update, delete on sign_in_failures to strongroom_app;

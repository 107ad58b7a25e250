-- Which account a key in a holder belongs to, by a keyed hash of holder and reference: another account can't take it.
create table key_owners (
    key_hash bytea primary key,
    account_id uuid not null references accounts
);

grant select, insert, delete on key_owners to strongroom_app;

-- What an account's IP list enforces: its operations reach into every region, so they ask here.
create table account_networks (
    account_id uuid primary key references accounts,
    api text[],
    portal text[]
);

grant select, insert, update on account_networks to strongroom_app;

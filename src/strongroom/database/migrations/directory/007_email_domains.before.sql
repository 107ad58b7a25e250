-- Which account a mail domain is proven to belong to, by a keyed hash of it: to one at most.
create table email_domains (
    domain_hash bytea primary key,
    account_id uuid not null references accounts
);

grant select, insert, delete on email_domains to strongroom_app;

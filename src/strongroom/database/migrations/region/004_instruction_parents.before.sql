-- Instructions belong to an order and to a customer of their tenant. Checked a statement at a time: foreign keys look
-- each row's parents up by a query of their own, a third of what writing an instruction cost in the database. Nobody
-- may delete orders or customers, so that they are there is all that has to be checked; customers are locked against
-- being forgotten meanwhile, as a foreign key would.
alter table instructions drop constraint instructions_tenant_id_order_id_fkey;
alter table instructions drop constraint instructions_tenant_id_customer_id_fkey;

create function refuse_orphans(table_name text) returns void language plpgsql as $$
begin
    raise foreign_key_violation using
        message = format('an instruction names a row of %s that is not there', table_name), table = table_name;
end $$;

create function check_new_instructions() returns trigger language plpgsql as $$
declare
    wanted bigint;
    found bigint;
begin
    if exists (
        select from (select distinct tenant_id, order_id from new_rows) as n
        where not exists (select from orders o where o.tenant_id = n.tenant_id and o.order_id = n.order_id offset 0)
    ) then
        perform refuse_orphans('orders');
    end if;
    select count(*), count(c.there) into wanted, found
    from (select distinct tenant_id, customer_id from new_rows order by tenant_id, customer_id) as n
        left join lateral (
            select true as there from customers
            where customers.tenant_id = n.tenant_id and customers.customer_id = n.customer_id
            offset 0 for key share
        ) as c on true;
    if found < wanted then
        perform refuse_orphans('customers');
    end if;
    return null;
end $$;

create function check_moved_instruction() returns trigger language plpgsql as $$
begin
    perform from orders where tenant_id = new.tenant_id and order_id = new.order_id;
    if not found then
        perform refuse_orphans('orders');
    end if;
    perform from customers where tenant_id = new.tenant_id and customer_id = new.customer_id for key share;
    if not found then
        perform refuse_orphans('customers');
    end if;
    return null;
end $$;

create trigger instructions_have_parents after insert on instructions
    referencing new table as new_rows for each statement execute function check_new_instructions();
create trigger instructions_keep_parents after update of tenant_id, order_id, customer_id on instructions
    for each row when ((old.tenant_id, old.order_id, old.customer_id) is distinct from
                       (new.tenant_id, new.order_id, new.customer_id))
    execute function check_moved_instruction();

-- New orders are written without looking whether their instructions are there already: that, and making room for a
-- conflict that can't be, was a sixth of what the database did for an order.

-- Writes orders with all that belongs to them, and tells which of them were there already (`taken`) and which
-- instructions are new (`added`; unless `only_new`, since then all of them are that aren't of an order in `taken`).
-- `verdict` is what enter_operation says; unless it is as expected nothing is done, and it is handed back.
-- `only_new`: nothing is added to an order that is there already, nor is a customer made whom only such orders bring.
-- Arrays that belong together are read side by side: o_… are orders, a_… their audit entries (for new orders; may be
-- empty), c_… the customers that orders bring, i_… instructions, d_… defaults of customers; `due` are days with work.
-- Rows are written in the order of their keys, so that two such calls never wait for each other in a ring. `offset 0`
-- keeps the planner from joining with whole tables: it would plan for average numbers, and there are few rows here.
create or replace function write_orders(
    inout verdict text, expected text, only_new boolean, whose uuid, at timestamptz, by_kind text, by_whom text,
    o_id uuid[], o_sealed bytea[], a_detail text[], a_correlation text[],
    c_order uuid[], c_id uuid[], c_sealed bytea[],
    i_order uuid[], i_id uuid[], i_customer uuid[], i_direction text[], i_currency text[], i_country text[],
    i_status text[], i_settled_by date[], i_scheme text[], i_scheme_source text[], i_instrument uuid[],
    i_instrument_source text[], i_sealed bytea[],
    due date[],
    d_order uuid[], d_customer uuid[], d_instrument uuid[], d_scheme text[], d_sealed bytea[],
    out taken uuid[], out added uuid[]
) language plpgsql as $$
declare
    made uuid[];
    skipped uuid[] := '{}';
    account uuid := current_account();
begin
    taken := '{}';
    added := '{}';
    if verdict <> expected then
        return;
    end if;
    with written as (
        insert into orders (tenant_id, order_id, sealed, created_at, updated_at)
        select whose, o.id, o.sealed, at, at from unnest(o_id, o_sealed) as o(id, sealed) order by o.id
        on conflict do nothing
        returning order_id
    )
    select array_agg(order_id) into made from written;
    if cardinality(made) is distinct from cardinality(o_id) then
        taken := array(select o.id from unnest(o_id) as o(id) where o.id <> all(coalesce(made, '{}')));
        if only_new then
            skipped := taken;
        end if;
    end if;
    if cardinality(c_id) > 0 then
        insert into customers (tenant_id, customer_id, status, sealed, created_at, updated_at)
        select distinct on (c.id) whose, c.id, 'ACTIVE', c.sealed, at, at
        from unnest(c_order, c_id, c_sealed) as c(order_id, id, sealed)
        where c.order_id <> all(skipped) and not exists (
            select from customers where tenant_id = whose and customer_id = c.id and status = 'ACTIVE' offset 0)
        order by c.id
        -- Somebody forgotten who comes again starts afresh.
        on conflict (tenant_id, customer_id) do update
        set status = 'ACTIVE', sealed = excluded.sealed, created_at = excluded.created_at,
            updated_at = excluded.updated_at
        where customers.status = 'FORGOTTEN';
    end if;
    if cardinality(i_id) > 0 and only_new then
        -- What belongs to an order that was made a moment ago can't be there yet.
        insert into instructions (tenant_id, order_id, instruction_id, customer_id, direction, currency, country,
                                  status, settled_by, scheme_id, scheme_source, financial_instrument_id,
                                  financial_instrument_source, sealed, created_at, updated_at)
        select whose, i.order_id, id, customer_id, direction, currency, country, status, settled_by, scheme_id,
               scheme_source, instrument_id, instrument_source, i.sealed, at, at
        from unnest(i_order, i_id, i_customer, i_direction, i_currency, i_country, i_status, i_settled_by,
                    i_scheme, i_scheme_source, i_instrument, i_instrument_source, i_sealed)
             as i(order_id, id, customer_id, direction, currency, country, status, settled_by, scheme_id,
                  scheme_source, instrument_id, instrument_source, sealed)
        where i.order_id <> all(skipped);
    elsif cardinality(i_id) > 0 then
        with written as (
            insert into instructions (tenant_id, order_id, instruction_id, customer_id, direction, currency, country,
                                      status, settled_by, scheme_id, scheme_source, financial_instrument_id,
                                      financial_instrument_source, sealed, created_at, updated_at)
            select whose, i.order_id, id, customer_id, direction, currency, country, status, settled_by, scheme_id,
                   scheme_source, instrument_id, instrument_source, i.sealed, at, at
            from unnest(i_order, i_id, i_customer, i_direction, i_currency, i_country, i_status, i_settled_by,
                        i_scheme, i_scheme_source, i_instrument, i_instrument_source, i_sealed)
                 as i(order_id, id, customer_id, direction, currency, country, status, settled_by, scheme_id,
                      scheme_source, instrument_id, instrument_source, sealed)
            order by i.order_id, id
            on conflict do nothing
            returning instruction_id
        )
        select coalesce(array_agg(instruction_id), '{}') into added from written;
    end if;
    if cardinality(due) > 0 then
        insert into due_work (tenant_id, due_on)
        select whose, day from unnest(due) as given(day)
        where not exists (select from due_work where tenant_id = whose and due_on = day offset 0)
        on conflict do nothing;
    end if;
    if cardinality(d_order) > 0 then
        insert into order_customer_defaults (tenant_id, order_id, customer_id, financial_instrument_id, scheme_id,
                                             sealed, updated_at)
        select whose, d.order_id, customer_id, instrument_id, scheme_id, d.sealed, at
        from unnest(d_order, d_customer, d_instrument, d_scheme, d_sealed)
             as d(order_id, customer_id, instrument_id, scheme_id, sealed)
        where d.order_id <> all(skipped);
    end if;
    if cardinality(a_detail) > 0 then
        insert into audit_entries (at, account_id, tenant_id, actor_kind, actor_id, action, subject_kind, subject_id,
                                   outcome, detail, correlation_id)
        select write_orders.at, account, whose, by_kind, by_whom, 'order.create', 'order',
               replace(a.order_id::text, '-', ''), 'done', a.detail, a.correlation_id
        from unnest(o_id, a_detail, a_correlation) as a(order_id, detail, correlation_id)
        where a.order_id <> all(taken);
    end if;
end $$;

-- Approvals of a version come from those who have no part in what was made, nor in each other: somebody's two keys are one.
create or replace function check_vote() returns trigger language plpgsql as $$
begin
    -- Votes on one instruction are cast one after the other, so that each sees those before it.
    perform from approvals a
    where (a.tenant_id, a.order_id, a.instruction_id) = (new.tenant_id, new.order_id, new.instruction_id)
    for update;
    if not exists (
        select from approvals a
        where (a.tenant_id, a.order_id, a.instruction_id) = (new.tenant_id, new.order_id, new.instruction_id)
          and a.version = new.version and a.content_hash = new.content_hash and a.state = 'PENDING'
          and a.expires_at > new.at
          and (new.verdict = 'REJECT' or is_independent(new.approver, new.makers, a.authors, a.makers)))
    then
        raise exception 'nobody approves what is their own, is over, or has changed' using errcode = 'check_violation';
    end if;
    if new.verdict = 'APPROVE' and exists (
        select from approval_votes v
        where (v.tenant_id, v.order_id, v.instruction_id) = (new.tenant_id, new.order_id, new.instruction_id)
          and v.version = new.version and v.verdict = 'APPROVE' and v.approver <> new.approver
          and not is_independent(new.approver, new.makers, array[v.approver], v.makers))
    then
        raise exception 'nobody approves what they have approved already' using errcode = 'check_violation';
    end if;
    return null;
end $$;

-- Whether somebody who acts by keys of these makers has no part in what those authors made: not by their own key, nor by
-- one that made the other's, nor as the same person behind both. Of a key whose makers aren't known nobody can say that.
create or replace function is_independent(
    approver text, approver_makers text[], authors text[], author_makers text[]
) returns boolean language sql immutable
return not (
    approver = any (authors || author_makers)
    or approver_makers && authors
    or exists (select from unnest(approver_makers) as maker where maker like 'person:%' and maker = any (author_makers))
    or 'unknown' = any (approver_makers || author_makers)
    or approver like 'api-key:%' and cardinality(approver_makers) = 0
    or cardinality(author_makers) = 0 and exists (select from unnest(authors) as author where author like 'api-key:%')
);

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

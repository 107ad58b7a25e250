-- Keys that end by themselves, and when they were used last (promise ACC-7: unused ones are found).
alter table api_keys
    add column expires_at timestamptz,
    add column last_used_at timestamptz;

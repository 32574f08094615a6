-- What became of rows that came out of quarantine, in the transaction that landed them
-- (guarantees 1 and 4).  One that was refused again waits as before, with one more try.
update {meta}.quarantine as q
set state = s.state, last_error = s.why, tries = q.tries + 1, tried_at = clock_timestamp(),
    decided_at = case when s.state = 'waiting' then null else clock_timestamp() end
from unnest(%(ids)s::bigint[], %(states)s::text[], %(reasons)s::text[]) as s (id, state, why)
where q.id = s.id

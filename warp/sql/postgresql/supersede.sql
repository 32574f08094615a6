-- Rows that something newer overrules.
update {meta}.quarantine as q
set state = 'superseded', decided_at = clock_timestamp(), last_error = s.why
from unnest(%(ids)s::bigint[], %(reasons)s::text[]) as s (id, why)
where q.id = s.id

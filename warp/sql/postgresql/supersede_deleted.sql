-- Rows of the quarantine whose key was deleted since.  One that never landed leaves no line in the
-- audit, so this is the only trace that it must not land any more.
update {meta}.quarantine as q
set state = 'superseded', decided_at = clock_timestamp(),
    last_error = 'the row was deleted at version ' || s.version || ', this is of ' || q.version
from unnest(%(keys)s::text[], %(versions)s::bigint[]) as s (key, version)
where q.source_namespace = %(namespace)s and q.source_table = %(table)s
    and q.state in ('waiting', 'replaying') and q.key = s.key and q.version <= s.version

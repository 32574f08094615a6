-- Changes of a schema that have not been tried for a while: whatever they wait for may have been
-- written by somebody who did not see them.  The pause doubles up to a minute.
select id, source_namespace, source_table, key, operation, row, kinds, partial, version, position,
    position_seconds, tries, extract(epoch from clock_timestamp() - at)::float8, reason, code,
    constraint_name, parent_namespace, parent_table, waits_for
from {meta}.deferred_rows
where schema_name = any(%(schemas)s) and id <> all(%(known)s)
    and tried_at + least(60, 2 ^ least(tries - 1, 6)) * interval '1s' < clock_timestamp()
order by version, id limit %(rows)s
for update skip locked

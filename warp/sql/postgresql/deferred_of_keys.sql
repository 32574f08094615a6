-- The waiting changes of the keys that a batch is about to change.  Taken before its rows are
-- merged, and waited for: who is just landing one of them must be done first, or a delete would
-- come before the row it deletes.
select id, source_namespace, source_table, key, operation, row, kinds, partial, version, position,
    position_seconds, tries, extract(epoch from clock_timestamp() - at)::float8, reason, code,
    constraint_name, parent_namespace, parent_table, waits_for
from {meta}.deferred_rows
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
    and key = any(%(keys)s)
for update

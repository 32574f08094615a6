-- All changes of a table that wait, before its tombstones go.
select id, source_namespace, source_table, key, operation, row, kinds, partial, version, position,
    position_seconds, tries, extract(epoch from clock_timestamp() - at)::float8, reason, code,
    constraint_name, parent_namespace, parent_table, waits_for
from {meta}.deferred_rows
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
    and id <> all(%(known)s)
order by version, id limit %(rows)s
for update

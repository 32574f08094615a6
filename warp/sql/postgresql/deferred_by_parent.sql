-- Changes of this schema that wait for rows just written.  Where it is not known for which, as with
-- a unique value, not more often than once a second.  Who is at one of them already is left alone.
select id, source_namespace, source_table, key, operation, row, kinds, partial, version, position,
    position_seconds, tries, extract(epoch from clock_timestamp() - at)::float8, reason, code,
    constraint_name, parent_namespace, parent_table, waits_for
from {meta}.deferred_rows
where schema_name = any(%(schemas)s) and parent_namespace = %(namespace)s and parent_table = %(table)s
    and (waits_for = any(%(keys)s)
        or (waits_for is null and (%(at_once)s or tried_at < clock_timestamp() - interval '1s')))
    and id <> all(%(known)s)
order by version, id limit %(rows)s
for update skip locked

-- A table's rows that are to be landed, the oldest version first, so that a later change of the
-- same key comes after it.
select id, schema_name, unit, source_namespace, source_table, key, operation, row, reason, code,
    position, position_seconds, version, kinds, partial, column_name, state,
    extract(epoch from at)::float8, tries, extract(epoch from tried_at)::float8, last_error
from (
    select q.*, {meta}.schema_of(unit, source_namespace, source_table) as schema_name
    from {meta}.quarantine as q
    where source_namespace = %(namespace)s and source_table = %(table)s
        and state = 'replaying'
) as q
where schema_name = %(schema)s
order by version, id
limit %(limit)s

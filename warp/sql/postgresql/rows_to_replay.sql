-- A table's rows that are to be landed, the oldest version first, so that a later change of the
-- same key comes after it; as many as fit into so many bytes, but one at least (guarantee 9).
select id, schema_name, unit, source_namespace, source_table, key, operation, row, reason, code,
    position, position_seconds, version, kinds, partial, column_name, state,
    extract(epoch from at)::float8, tries, extract(epoch from tried_at)::float8, last_error
from (
    select q.*,
        sum(octet_length(row)) over (order by version, id) - octet_length(row) as bytes_before
    from {meta}.quarantine as q
    where source_namespace = %(namespace)s and source_table = %(table)s and state = 'replaying'
        and schema_name = %(schema)s
    order by version, id
    limit %(limit)s
) as q
where bytes_before < %(bytes)s
order by version, id

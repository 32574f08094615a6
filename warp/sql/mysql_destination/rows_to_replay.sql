-- A table's rows that are to be landed, the oldest version first, so that a later change of the
-- same key comes after it; as many as fit into so many bytes, but one at least (guarantee 9).
select id, schema_name, unit, source_namespace, source_table, `key`, operation, `row`, reason,
    code, position, position_seconds, version, kinds, partial, column_name, state,
    unix_timestamp(at) + 0e0, tries, unix_timestamp(tried_at) + 0e0, last_error
from {meta}.quarantine
where id in %(ids)s
order by version, id

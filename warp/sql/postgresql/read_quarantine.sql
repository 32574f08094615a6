-- What was set aside and is chosen, in the order it came.
select id, schema_name, unit, source_namespace, source_table, key, operation,
    case when %(whole)s then row else '' end, reason, code, position, position_seconds, version, kinds, partial, column_name, state,
    extract(epoch from at)::float8, tries, extract(epoch from tried_at)::float8, last_error
from {meta}.quarantine
where id > %(after)s and (%(any_id)s or id = any(%(ids)s::bigint[]))
    and (cardinality(%(schemas)s::text[]) = 0 or schema_name = any(%(schemas)s))
    and (%(code)s = '' or code = %(code)s)
    and (%(table)s = '' or source_table = %(table)s
        or source_namespace || '.' || source_table = %(table)s)
    and (%(reason)s = '' or code = %(reason)s or strpos(reason, %(reason)s) > 0)
    and (cardinality(%(states)s::text[]) = 0 or state = any(%(states)s))
    and (%(older_than)s::float8 is null
        or at <= clock_timestamp() - make_interval(secs => %(older_than)s))
    and (%(newer_than)s::float8 is null
        or at >= clock_timestamp() - make_interval(secs => %(newer_than)s))
order by id
limit %(limit)s

-- What was set aside and is chosen, in the order it came.
select id, schema_name, unit, source_namespace, source_table, `key`, operation,
    if(%(whole)s, `row`, ''), reason, code, position, position_seconds, version, kinds, partial,
    column_name, state, unix_timestamp(at) + 0e0, tries, unix_timestamp(tried_at) + 0e0, last_error
from {meta}.quarantine
where id > %(after)s and (%(any_id)s or id in %(ids)s)
    and (%(any_schema)s or schema_name in %(schemas)s)
    and (%(code)s = '' or code = %(code)s)
    and (%(table)s = '' or source_table = %(table)s
        or concat(source_namespace, '.', source_table) = %(table)s)
    and (%(reason)s = '' or code = %(reason)s or locate(%(reason)s, reason) > 0)
    and (%(any_state)s or state in %(states)s)
    and (%(older_than)s is null
        or unix_timestamp(at) <= unix_timestamp(sysdate(6)) - %(older_than)s)
    and (%(newer_than)s is null
        or unix_timestamp(at) >= unix_timestamp(sysdate(6)) - %(newer_than)s)
order by id
limit %(limit)s

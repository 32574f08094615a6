-- Lines of the error log, the latest first; a finding is as late as the last of its cells.  What
-- happened to a stream that schemas share (`*`) happened to each of them.
select id, unix_timestamp(at) + 0e0, unix_timestamp(last_at) + 0e0, code, error_class, message,
    schema_name, unit, source_namespace, source_table, column_name, `key`, position, action,
    if(finding is not null, cells, null), original_length
from {meta}.error_log
where (%(any_id)s or id in %(ids)s)
    and (%(any_schema)s or schema_name in %(schemas)s or schema_name = '*')
    and (%(code)s = '' or code = %(code)s)
    and (%(table)s = '' or source_table = %(table)s
        or concat(source_namespace, '.', source_table) = %(table)s)
    and (%(reason)s = '' or code = %(reason)s or locate(%(reason)s, message) > 0)
    and (%(older_than)s is null
        or unix_timestamp(last_at) <= unix_timestamp(sysdate(6)) - %(older_than)s)
    and (%(newer_than)s is null
        or unix_timestamp(last_at) >= unix_timestamp(sysdate(6)) - %(newer_than)s)
order by last_at desc, id desc
limit %(limit)s

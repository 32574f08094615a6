-- Lines of the error log, the latest first; a finding is as late as the last of its cells.  What
-- happened to a stream that schemas share (`*`) happened to each of them.
select id, extract(epoch from at)::float8, extract(epoch from last_at)::float8, code, error_class,
    message, schema, unit, source_namespace, source_table, column_name, key, position, action,
    case when finding is not null then cells end, original_length
from (
    select e.*,
        coalesce(schema_name, {meta}.schema_of(unit, source_namespace, source_table)) as schema
    from {meta}.error_log as e
    where %(any_id)s or id = any(%(ids)s::bigint[])
) as e
where (cardinality(%(schemas)s::text[]) = 0 or schema = any(%(schemas)s) or schema = '*')
    and (%(code)s = '' or code = %(code)s)
    and (%(table)s = '' or source_table = %(table)s
        or source_namespace || '.' || source_table = %(table)s)
    and (%(reason)s = '' or code = %(reason)s or strpos(message, %(reason)s) > 0)
    and (%(older_than)s::float8 is null
        or last_at <= clock_timestamp() - make_interval(secs => %(older_than)s))
    and (%(newer_than)s::float8 is null
        or last_at >= clock_timestamp() - make_interval(secs => %(newer_than)s))
order by last_at desc, id desc
limit %(limit)s

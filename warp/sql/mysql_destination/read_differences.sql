-- Rows found to differ that nobody has repaired.
select id, `key`, kinds, sort, `columns`, version, unix_timestamp(found_at) + 0e0, state
from {meta}.differences
where state = 'open' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s and id > %(after)s
    and (%(unit)s = '' or unit = %(unit)s)
order by id
limit %(limit)s

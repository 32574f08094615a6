-- The columns of a destination table with their types and limits, as the server has them.
select
    a.attname,
    format_type(a.atttypid, null),
    case
        when a.atttypmod < 4 then null
        when a.atttypid = 'pg_catalog.varchar'::pg_catalog.regtype then a.atttypmod - 4
        when a.atttypid = 'pg_catalog.numeric'::pg_catalog.regtype
            then ((a.atttypmod - 4) >> 16) & 65535
    end,
    case
        when a.atttypmod >= 4 and a.atttypid = 'pg_catalog.numeric'::pg_catalog.regtype
            then (((a.atttypmod - 4) & 2047) # 1024) - 1024
    end
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(namespace)s and c.relname = %(table)s and c.relkind in ('r', 'p')
    and a.attnum > 0 and not a.attisdropped
order by a.attnum

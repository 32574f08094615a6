-- How many columns a destination table has, with those that were dropped.
select count(*)
from pg_catalog.pg_attribute a
join pg_catalog.pg_class c on c.oid = a.attrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(namespace)s and c.relname = %(table)s and c.relkind in ('r', 'p')
    and a.attnum > 0

-- What a rewrite of the table would write again, its parts and indexes included.
select coalesce(sum(pg_catalog.pg_total_relation_size(t.relid)), 0)::bigint
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
cross join lateral pg_catalog.pg_partition_tree(c.oid) t
where n.nspname = %(namespace)s and c.relname = %(table)s

-- What a rewrite of the table would write again, its partitions and indexes included.
select pg_catalog.pg_total_relation_size(c.oid)
    + coalesce(
        (select sum(pg_catalog.pg_total_relation_size(part.relid))
         from pg_catalog.pg_partition_tree(c.oid) part
         where part.relid <> c.oid),
        0
    )::bigint
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(namespace)s and c.relname = %(table)s

-- About how many rows and bytes a table has, its partitions together.  A table that was never
-- analyzed has no count: a row is taken for a hundred bytes then.
SELECT
  coalesce(sum(CASE WHEN c.reltuples >= 0 THEN c.reltuples ELSE pg_catalog.pg_relation_size(c.oid) / 100 END), 0)::bigint,
  coalesce(sum(pg_catalog.pg_relation_size(c.oid)), 0)::bigint
FROM pg_catalog.pg_class AS c
WHERE c.oid = %(oid)s::oid
  OR c.oid IN (SELECT t.relid FROM pg_catalog.pg_partition_tree(%(oid)s::oid::regclass) AS t)

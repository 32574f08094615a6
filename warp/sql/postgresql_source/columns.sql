-- The columns of some tables, in the order the log has them.  `published` is what the publication
-- says of the column: false for one outside its column list, NULL for a table that is not in it.
-- A virtual column is nowhere but in queries; a stored one is in the log from PostgreSQL 18 on.
WITH published AS MATERIALIZED (
  SELECT p.schemaname, p.tablename, p.attnames, p.rowfilter
  FROM pg_catalog.pg_publication_tables AS p
  WHERE p.pubname = %(publication)s
)
SELECT
  a.attrelid::bigint,
  a.attname::text,
  a.attnum::int,
  a.atttypid::bigint,
  pg_catalog.format_type(a.atttypid, a.atttypmod) AS type,
  a.attgenerated::text,
  a.atthasmissing,
  a.attname = ANY (p.attnames) AS published,
  p.rowfilter
FROM pg_catalog.pg_attribute AS a
JOIN pg_catalog.pg_class AS c ON c.oid = a.attrelid
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN published AS p ON p.schemaname = n.nspname AND p.tablename = c.relname
WHERE a.attrelid = ANY (%(oids)s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum

-- The tables of some schemas (or, with tables given, these) with what makes them publishable.  A
-- partition is read through its root.  The key is the index by which the log names an old row; of
-- a table whose log has whole rows, the primary key or any that would do.
WITH published AS MATERIALIZED (  -- once, and not once for each table
  SELECT p.schemaname, p.tablename
  FROM pg_catalog.pg_publication_tables AS p
  WHERE p.pubname = %(publication)s
)
SELECT
  c.oid::bigint,
  n.nspname::text,
  c.relname::text,
  c.relkind::text,
  c.relreplident::text,
  c.relpersistence::text,
  coalesce(
    (
      SELECT array_agg(a.attname::text ORDER BY k.place)
      FROM unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
      JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = k.attnum
      WHERE k.place <= i.indnkeyatts
    ),
    '{}'
  ) AS key,
  (n.nspname, c.relname) IN (SELECT p.schemaname, p.tablename FROM published AS p) AS published
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT x.*
  FROM pg_catalog.pg_index AS x
  WHERE x.indrelid = c.oid
    AND x.indisunique AND x.indisvalid AND x.indimmediate
    AND x.indpred IS NULL AND x.indexprs IS NULL
    AND CASE c.relreplident WHEN 'i' THEN x.indisreplident WHEN 'f' THEN true
        ELSE x.indisprimary END
    AND NOT EXISTS (
      SELECT FROM pg_catalog.pg_attribute AS a
      WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey::int2[]) AND NOT a.attnotnull
    )
  ORDER BY x.indisprimary DESC, x.indexrelid
  LIMIT 1
) AS i ON true
WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND (%(namespaces)s::text[] IS NULL OR n.nspname = ANY (%(namespaces)s::text[]))
  AND (%(names)s::text[] IS NULL OR c.relname = ANY (%(names)s::text[]))
  AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY 2, 3

-- The publication of this name; what only newer versions have is read as JSON.
SELECT
  p.oid::bigint,
  p.puballtables OR EXISTS (
    SELECT FROM pg_catalog.pg_publication_namespace AS n WHERE n.pnpubid = p.oid
  ) AS by_rule,
  p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate AS whole,
  p.pubviaroot,
  coalesce(pg_catalog.to_jsonb(p) ->> 'pubgencols', '') AS generated,
  pg_catalog.pg_has_role(p.pubowner, 'USAGE') AS ours
FROM pg_catalog.pg_publication AS p
WHERE p.pubname = %(publication)s

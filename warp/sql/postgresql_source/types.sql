-- What types are made of: domains of their base, arrays of their element.  An array whose elements
-- are not parted by commas is left as text, for nothing here reads it.
SELECT
  t.oid::bigint,
  t.typtype::text,
  t.typbasetype::bigint,
  CASE WHEN t.typcategory = 'A' AND t.typdelim = ',' THEN t.typelem::bigint ELSE 0 END
FROM pg_catalog.pg_type AS t
WHERE t.oid = ANY (%(oids)s::oid[])

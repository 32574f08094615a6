-- What this role may do with some tables.
SELECT
  c.oid::bigint,
  pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AS enters,
  pg_catalog.has_table_privilege(c.oid, 'SELECT') AS reads,
  pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owns,
  pg_catalog.row_security_active(c.oid) AS filtered,
  pg_catalog.pg_get_userbyid(c.relowner)::text AS owner
FROM pg_catalog.pg_class AS c
WHERE c.oid = ANY (%(oids)s::oid[])

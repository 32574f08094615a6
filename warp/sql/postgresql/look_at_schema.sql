-- What our user may do in one schema; no row where there is none.
select has_schema_privilege(n.oid, 'USAGE') and has_schema_privilege(n.oid, 'CREATE'),
    pg_get_userbyid(n.nspowner)
from pg_namespace n where n.nspname = %(schema)s

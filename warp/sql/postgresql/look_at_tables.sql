-- Tables of a schema that our user may not write, or may write and not alter; all of them, or
-- those of some names.
with seen as (
    select c.relname,
        has_table_privilege(c.oid, 'SELECT') and has_table_privilege(c.oid, 'INSERT')
            and has_table_privilege(c.oid, 'UPDATE') and has_table_privilege(c.oid, 'DELETE')
            as writable,
        pg_has_role(current_user, c.relowner, 'USAGE') as owned
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = %(schema)s and c.relkind in ('r', 'p')
        and (%(names)s::text[] is null or c.relname = any(%(names)s))
)
select relname, writable from seen where not (writable and owned) order by relname limit 20

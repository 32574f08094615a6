-- Rows come out of quarantine by a unit of their table, and never overrule what came after them.

-- The schema that the id of a unit names: `stream:SCHEMA`, `poll:SCHEMA:TABLE`,
-- `chunk:SCHEMA:TABLE:EPOCH:NUMBER`, `replay:SCHEMA:TABLE`.
create function {meta}.schema_of(unit text, namespace text, table_name text) returns text
language sql immutable as $$
    select case
        when pg_catalog.starts_with(unit, 'stream:') then pg_catalog.substr(unit, 8)
        when namespace is null then pg_catalog.regexp_replace(unit, '^[a-z]+:', '')
        else pg_catalog.left(
            pg_catalog.regexp_replace(
                pg_catalog.regexp_replace(unit, '^(chunk:.*):\d+:\d+$', '\1'), '^[a-z]+:', ''
            ),
            -2 - pg_catalog.length(namespace) - pg_catalog.length(table_name)
        )
    end
$$;

create index quarantine_undecided on {meta}.quarantine (source_namespace, source_table, version)
    where state in ('waiting', 'replaying');
-- Every delete asks for the rows of its key.  By hash, since a key may be longer than a page.
create index quarantine_undecided_key on {meta}.quarantine using hash (key)
    where state in ('waiting', 'replaying');
-- Has a row that is to land been deleted since?
create index deletion_audit_by_version
    on {meta}.deletion_audit (source_namespace, source_table, version);

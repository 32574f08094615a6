-- The type that keeps any value of a column, whatever its length or precision become: one of the
-- server's own without its modifier, the widest integer, else text.
select a.attname, case
    when t.typname in ('int2', 'int4', 'int8') then 'pg_catalog.int8'
    when t.typname in ('float4', 'float8') then 'pg_catalog.float8'
    when t.typtype = 'b' and t.typelem = 0 and t.typnamespace = 'pg_catalog'::regnamespace
        then 'pg_catalog.' || quote_ident(t.typname)
    else 'pg_catalog.text' end
from pg_attribute a join pg_type t on t.oid = a.atttypid
where a.attrelid = to_regclass({table}) and a.attnum > 0 and not a.attisdropped

-- The foreign keys that a table has and those that refer to it, each with its columns in order.  Not
-- those of periods, whose parent is found by another operator than equality.
select c.conname::text, child_space.nspname::text, child.relname::text,
    array(select a.attname::text from unnest(c.conkey) with ordinality as k (attnum, place)
        join pg_catalog.pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.attnum
        order by k.place),
    parent_space.nspname::text, parent.relname::text,
    array(select a.attname::text from unnest(c.confkey) with ordinality as k (attnum, place)
        join pg_catalog.pg_attribute a on a.attrelid = c.confrelid and a.attnum = k.attnum
        order by k.place),
    c.condeferrable
from pg_catalog.pg_constraint c
join pg_catalog.pg_class child on child.oid = c.conrelid
join pg_catalog.pg_namespace child_space on child_space.oid = child.relnamespace
join pg_catalog.pg_class parent on parent.oid = c.confrelid
join pg_catalog.pg_namespace parent_space on parent_space.oid = parent.relnamespace
where c.contype = 'f' and c.conparentid = 0
    and not exists (select 1 from unnest(c.conpfeqop) as o (operator)
        join pg_catalog.pg_operator p on p.oid = o.operator where p.oprname <> '=')
    and ((child_space.nspname = %(namespace)s and child.relname = %(table)s)
        or (parent_space.nspname = %(namespace)s and parent.relname = %(table)s))
order by c.conname

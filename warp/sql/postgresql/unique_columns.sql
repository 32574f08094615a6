-- The columns that the unique and exclusion constraints of a table beside its primary key rest on,
-- those in expressions and predicates too, whether they may be NULL, and whether a check can be put
-- off to the end of the transaction.
select a.attname::text, bool_or(a.attnotnull), bool_or(not i.indimmediate),
    bool_or(exists (select 1 from pg_catalog.pg_constraint f
        where f.contype = 'f' and f.conindid = i.indexrelid))
from pg_catalog.pg_index i
join pg_catalog.pg_class c on c.oid = i.indrelid
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
where n.nspname = %(namespace)s and c.relname = %(table)s
    and not i.indisprimary and (i.indisunique or i.indisexclusion)
    and (a.attnum = any(i.indkey::int2[])
        or exists (select 1 from pg_catalog.pg_depend d
            where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = i.indexrelid
            and d.refobjid = c.oid and d.refobjsubid = a.attnum))
group by a.attname
order by a.attname

-- Asked after rows went straight into a table, when the lock on it keeps everybody from altering
-- it: has it the columns whose bytes were sent (the bytes of a number stored into a column of
-- another type are another number), and an index that refuses a key which is there already?
select
    not exists (
        select
        from unnest(%(columns)s::text[], %(types)s::text[]) as sent (name, type)
        left join pg_catalog.pg_attribute a
            on a.attrelid = c.oid and a.attname = sent.name and not a.attisdropped
        where a.atttypid is null
            or case a.atttypid
                when 'pg_catalog.varchar'::pg_catalog.regtype then 'pg_catalog.text'::pg_catalog.regtype
                else a.atttypid
            end <> sent.type::pg_catalog.regtype
    )
    and (cardinality(%(key)s::text[]) = 0 or exists (
        select
        from pg_catalog.pg_index i
        where i.indrelid = c.oid and i.indisunique and i.indimmediate and i.indisvalid
            and i.indpred is null and i.indexprs is null
            and (
                select array_agg(a.attname::text order by a.attname)
                from pg_catalog.pg_attribute a
                where a.attrelid = c.oid and a.attnum = any((i.indkey::int2[])[0:i.indnkeyatts - 1])
            ) = %(key)s::text[]
    ))
from pg_catalog.pg_class c
join pg_catalog.pg_namespace n on n.oid = c.relnamespace
where n.nspname = %(namespace)s and c.relname = %(table)s and c.relkind in ('r', 'p')

-- The last passes of each table, the newest first.
select v.schema_name, v.source_namespace, v.source_table, v.pass, count(*), count(v.checked_at),
    sum(v.rows)::bigint,
    (
        select count(*) from {meta}.differences as d
        where d.schema_name = v.schema_name and d.source_namespace = v.source_namespace
            and d.source_table = v.source_table and d.pass = v.pass
            and d.state in ('open', 'repairing')
    ),
    sum(v.aside)::bigint, sum(v.unsettled)::bigint,
    extract(epoch from min(v.planned_at))::float8, extract(epoch from min(v.checked_at))::float8,
    extract(epoch from max(v.checked_at))::float8,
    string_agg(nullif(v.digest, ''), ',')
from {meta}.verifications as v
where (%(schema)s::text is null or v.schema_name = %(schema)s)
    and (%(namespace)s::text is null or v.source_namespace = %(namespace)s)
    and (%(table)s::text is null or v.source_table = %(table)s)
group by v.schema_name, v.source_namespace, v.source_table, v.pass
order by v.schema_name, v.source_namespace, v.source_table, v.pass desc

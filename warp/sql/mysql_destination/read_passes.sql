-- The last passes of each table, the newest first.
select v.schema_name, v.source_namespace, v.source_table, v.pass, count(*), count(v.checked_at),
    cast(sum(v.`rows`) as signed),
    (
        select count(*) from {meta}.differences as d
        where d.schema_name = v.schema_name and d.source_namespace = v.source_namespace
            and d.source_table = v.source_table and d.pass = v.pass
            and d.state in ('open', 'repairing')
    ),
    cast(sum(v.aside) as signed), cast(sum(v.unsettled) as signed),
    unix_timestamp(min(v.planned_at)) + 0e0, unix_timestamp(min(v.checked_at)) + 0e0,
    unix_timestamp(max(v.checked_at)) + 0e0,
    group_concat(nullif(v.digest, '') separator ',')
from {meta}.verifications as v
where (%(schema)s is null or v.schema_name = %(schema)s)
    and (%(namespace)s is null or v.source_namespace = %(namespace)s)
    and (%(table)s is null or v.source_table = %(table)s)
group by v.schema_name, v.source_namespace, v.source_table, v.pass
order by v.schema_name, v.source_namespace, v.source_table, v.pass desc

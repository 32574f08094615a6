-- The pass is over: what earlier ones found and this one did not is gone, or was repaired.
update {meta}.differences as d
set state = case state when 'repairing' then 'repaired' else 'gone' end,
    decided_at = clock_timestamp()
where state in ('open', 'repairing') and schema_name = %(schema)s
    and source_namespace = %(namespace)s and source_table = %(table)s and pass < %(pass)s
    and not exists (
        select from {meta}.verifications as v
        where v.schema_name = %(schema)s and v.source_namespace = %(namespace)s
            and v.source_table = %(table)s and v.pass = %(pass)s and v.checked_at is null
    )

-- The pass is over: what earlier ones found and this one did not is gone, or was repaired.
update {meta}.differences
set decided_at = sysdate(6), state = if(state = 'repairing', 'repaired', 'gone')
where state in ('open', 'repairing') and schema_name = %(schema)s
    and source_namespace = %(namespace)s and source_table = %(table)s and pass < %(pass)s
    and not exists (
        select 1 from {meta}.verifications as v
        where v.schema_name = %(schema)s and v.source_namespace = %(namespace)s
            and v.source_table = %(table)s and v.pass = %(pass)s and v.checked_at is null
    )

-- Saying so twice is no error; a run that waited for its source may belong to a later slot by now.
insert into {meta}.sync_runs
    (run, unit, schema_name, source_namespace, source_table, worker, fence, slot, error)
values (%(run)s, %(unit)s, %(schema)s, %(namespace)s, %(table)s, %(worker)s, %(fence)s, %(slot)s,
        '')
on duplicate key update slot = if(ended_at is null, %(slot)s, slot)

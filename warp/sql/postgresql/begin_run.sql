-- Saying so twice is no error.
insert into {meta}.sync_runs
    (run, unit, schema_name, source_namespace, source_table, worker, fence)
values (%(run)s, %(unit)s, %(schema)s, %(namespace)s, %(table)s, %(worker)s, %(fence)s)
on conflict (run) do nothing

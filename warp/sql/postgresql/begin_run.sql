-- Saying so twice is no error; a run that waited for its source may belong to a later slot by now.
insert into {meta}.sync_runs
    (run, unit, schema_name, source_namespace, source_table, worker, fence, slot)
values (%(run)s, %(unit)s, %(schema)s, %(namespace)s, %(table)s, %(worker)s, %(fence)s,
        to_timestamp(%(slot)s::float8))
on conflict (run) do update set slot = excluded.slot
where sync_runs.ended_at is null

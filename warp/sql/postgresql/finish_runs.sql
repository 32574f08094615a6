-- A finished unit is never opened again, so no successor would find the run of a worker that was
-- killed at this very commit: it ends together with the unit.
update {meta}.sync_runs set status = 'done', ended_at = clock_timestamp()
where unit = %(unit)s and ended_at is null

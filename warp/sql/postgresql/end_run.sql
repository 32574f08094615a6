-- A run that a successor called abandoned stays so.
update {meta}.sync_runs
set status = %(status)s, rows = %(rows)s, error = %(error)s, ended_at = clock_timestamp()
where run = %(run)s and ended_at is null

-- A run that a successor called abandoned stays so; one that ended with its unit gets its rows.
update {meta}.sync_runs
set status = %(status)s, rows = %(rows)s, error = %(error)s,
    ended_at = coalesce(ended_at, clock_timestamp())
where run = %(run)s and (ended_at is null or status = %(status)s)

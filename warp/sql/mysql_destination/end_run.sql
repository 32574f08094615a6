-- A run that a successor called abandoned stays so; one that ended with its unit gets its rows.
update {meta}.sync_runs
set `rows` = %(rows)s, error = %(error)s, ended_at = coalesce(ended_at, sysdate(6)),
    status = %(status)s
where run = %(run)s and (ended_at is null or status = %(status)s)

-- Runs of this unit that never ended: their worker was killed.
update {meta}.sync_runs set status = 'abandoned', ended_at = sysdate(6)
where unit = %(unit)s and ended_at is null and run <> %(run)s

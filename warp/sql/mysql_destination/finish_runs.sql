-- A finished unit is never opened again, and a complete run of a poll ends in the transaction of
-- its last marker: so no successor would find the run of a worker that was killed at this commit.
update {meta}.sync_runs set status = 'done', ended_at = sysdate(6)
where unit = %(unit)s and ended_at is null

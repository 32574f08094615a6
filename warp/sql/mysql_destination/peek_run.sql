-- The run that is under way of a unit.
select run, slot from {meta}.sync_runs
where unit = %(unit)s and ended_at is null
order by started_at desc limit 1

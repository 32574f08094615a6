-- Has this slot been run to its end?
select 1 from {meta}.sync_runs
where unit = %(unit)s and slot = %(slot)s and status = 'done' limit 1

-- A replay is wanted.  The fence grows, so that a worker about to end the unit looks again; what a
-- person paused stays so.
update {meta}.sync_markers
set phase = if(phase = 'paused', phase, 'planned'), fence = fence + 1, updated_at = sysdate(6)
where unit = %(unit)s

-- A phase set by hand: failed, paused, or back after a revival.  The fence grows, so that a worker
-- that is at it must adopt the unit anew and then sees the phase; its next write would hide it.
update {meta}.sync_markers
set phase = %(phase)s, fence = fence + 1, updated_at = sysdate(6)
where unit = %(unit)s and (%(seen)s is null or fence <= %(seen)s)

-- A phase set by hand: failed, paused, or back after a revival.
update {meta}.sync_markers set phase = %(phase)s, updated_at = clock_timestamp()
where unit = %(unit)s

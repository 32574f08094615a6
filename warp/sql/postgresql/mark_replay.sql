-- A replay is wanted.  The fence grows, so that a worker about to end the unit looks again; what a
-- person paused stays so.
update {meta}.sync_markers
set phase = case when phase = 'paused' then phase else 'planned' end, fence = fence + 1,
    updated_at = clock_timestamp()
where unit = %(unit)s

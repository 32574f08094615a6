-- The fence grows with the epoch: the running stream is shut out at once, and its position is
-- moved only here.  A resync of one table keeps the position, or other tables would lose changes.
update {meta}.sync_markers
set fence = fence + 1, epoch = epoch + 1,
    position = case when %(moves)s or position is null then %(position)s else position end,
    position_seconds = case when %(moves)s or position is null then %(position_seconds)s
        else position_seconds end,
    phase = 'streaming', updated_at = clock_timestamp()
where unit = %(unit)s
returning unit

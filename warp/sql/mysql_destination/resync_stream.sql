-- The fence grows with the epoch: the running stream is shut out at once, and its position is
-- moved only here.  A resync of one table keeps the position, or other tables would lose changes.
update {meta}.sync_markers
set fence = fence + 1, epoch = epoch + 1,
    position_seconds = if(%(moves)s or position is null, %(position_seconds)s, position_seconds),
    position = if(%(moves)s or position is null, %(position)s, position),
    phase = 'streaming', updated_at = sysdate(6)
where unit = %(unit)s

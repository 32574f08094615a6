-- The first statement of every write transaction: guarantee 2, second half.  It takes the row's
-- lock, so that two writers of one unit queue here and the late one finds its batch taken.
update {meta}.sync_markers
set position = %(position)s, position_seconds = %(position_seconds)s, batch = %(batch)s,
    `rows` = %(rows)s, phase = %(phase)s, connection = connection_id(), updated_at = sysdate(6)
where unit = %(unit)s and fence = %(fence)s and batch = %(batch)s - 1

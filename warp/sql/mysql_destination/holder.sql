-- Read uncommitted: the fence and the connection of the write transaction that holds this marker.
select fence, connection from {meta}.sync_markers where unit = %(unit)s

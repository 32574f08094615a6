-- The committed fence of a unit, without waiting for anybody.
select fence from {meta}.sync_markers where unit = %(unit)s

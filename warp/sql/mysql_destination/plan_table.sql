-- The table's snapshot has begun; what it does not find again is swept when it ends.
update {meta}.sync_markers
set phase = 'snapshot', sweep_below = %(version)s, updated_at = sysdate(6)
where unit = %(unit)s

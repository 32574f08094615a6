-- The snapshot is complete and the sweep done.
update {meta}.sync_markers
set phase = 'streaming', sweep_below = -1, spec = null, updated_at = sysdate(6)
where unit = %(unit)s

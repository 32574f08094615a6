-- A range of a table's keys starts over.  Only of a table that is complete: one that is being read
-- whole would be left with the range alone.
update {meta}.sync_markers
set epoch = epoch + 1, phase = 'planned', spec = %(spec)s, updated_at = sysdate(6)
where unit = %(unit)s and phase = 'streaming'

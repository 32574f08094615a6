-- Tables whose rows must be read anew.  The epoch makes old chunks strangers.
update {meta}.sync_markers
set epoch = epoch + 1, phase = 'planned', spec = null, updated_at = sysdate(6)
where unit in %(units)s

-- What became of differences: repaired, or gone by themselves.  One that was decided stays so.
update {meta}.differences
set state = %(state)s, decided_at = sysdate(6)
where id in %(ids)s and state in ('open', 'repairing')

update {meta}.differences
set state = %(state)s, decided_at = clock_timestamp()
where id = any(%(ids)s) and state in ('open', 'repairing')

-- A person wants these rows never landed.
update {meta}.quarantine
set state = 'discarded', decided_at = clock_timestamp()
where id = any(%(ids)s) and state in ('waiting', 'replaying')

-- A person wants these rows never landed.
update {meta}.quarantine
set state = 'discarded', decided_at = sysdate(6)
where id in %(ids)s and state in ('waiting', 'replaying')

-- A row that something newer overrules.
update {meta}.quarantine
set state = 'superseded', decided_at = clock_timestamp(), last_error = %(why)s
where id = %(id)s

-- What became of a row that came out of quarantine, in the transaction that landed it
-- (guarantees 1 and 4).  One that was refused again waits as before, with one more try.
update {meta}.quarantine
set state = %(state)s, last_error = %(why)s, tries = tries + 1, tried_at = clock_timestamp(),
    decided_at = case when %(state)s = 'waiting' then null else clock_timestamp() end
where id = %(id)s

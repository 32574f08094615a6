-- Rows of the quarantine of before a snapshot that is complete now: it found them again or they
-- are gone.
update {meta}.quarantine
set last_error = concat('the table was read anew at version ', %(below)s, ', this is of ', version),
    state = 'superseded', decided_at = sysdate(6)
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and version < %(below)s

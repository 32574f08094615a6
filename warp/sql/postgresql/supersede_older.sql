-- Rows of the quarantine of before a snapshot that is complete now: it found them again or they
-- are gone.
update {meta}.quarantine
set state = 'superseded', decided_at = clock_timestamp(),
    last_error = 'the table was read anew at version ' || %(below)s::bigint
        || ', this is of ' || version
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and version < %(below)s

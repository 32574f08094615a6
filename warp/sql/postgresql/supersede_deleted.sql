-- Rows of the quarantine whose key was deleted since.  One that never landed leaves no line in the
-- audit, so this is the only trace that it must not land any more.
update {meta}.quarantine
set state = 'superseded', decided_at = clock_timestamp(),
    last_error = 'the row was deleted at version ' || %(version)s::bigint || ', this is of ' || version
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and key = %(key)s and version <= %(version)s

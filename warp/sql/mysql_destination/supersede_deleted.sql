-- Rows of the quarantine whose key was deleted since.  One that never landed leaves no line in the
-- audit, so this is the only trace that it must not land any more.
update {meta}.quarantine
set last_error = concat('the row was deleted at version ', %(version)s, ', this is of ', version),
    state = 'superseded', decided_at = sysdate(6)
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and `key` = %(key)s and version <= %(version)s

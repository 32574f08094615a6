-- The source goes on with another count of versions, which is at `newest` now: what this table has
-- of the old one and is not below that counts as older.
update {meta}.quarantine set version = %(newest)s - 1
where source_namespace = %(namespace)s and source_table = %(table)s
    and state in ('waiting', 'replaying') and version >= %(newest)s

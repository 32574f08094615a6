-- Keys of which a row waits, in quarantine or for another row.  Single cells do not count: what the
-- rest of such a row should be is known.
select key from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s and schema_name = %(schema)s
    and state in ('waiting', 'replaying') and column_name = '' and key = any(%(keys)s)
union
select key from {meta}.deferred_rows
where source_namespace = %(namespace)s and source_table = %(table)s and schema_name = %(schema)s
    and key = any(%(keys)s)

-- Keys of which a row waits in quarantine.  Single cells do not count: what the rest of such a row
-- should be is known.
select distinct `key` from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s and schema_name = %(schema)s
    and state in ('waiting', 'replaying') and column_name = '' and `key` in %(keys)s

-- The chunks of a table that is snapshot anew.  Before the table row is locked: a chunk's writer
-- holds its marker when it asks for the table row, and the other order would be a deadlock.
delete from {meta}.sync_markers
where kind = 'chunk' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s

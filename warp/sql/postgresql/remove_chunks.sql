-- The chunks of tables that are snapshot anew.  Before the table row is locked: a chunk's writer
-- holds its marker when it asks for the table row, and the other order would be a deadlock.
delete from {meta}.sync_markers
where kind = 'chunk' and (schema_name, source_namespace, source_table) in
    (select * from unnest(%(schemas)s::text[], %(namespaces)s::text[], %(tables)s::text[]))

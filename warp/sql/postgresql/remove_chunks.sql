-- The chunks of tables that are snapshot anew.  Before the table row is locked: a chunk's writer
-- holds its marker when it asks for the table row, and the other order would be a deadlock.
delete from {meta}.sync_markers
where kind = 'chunk' and schema_name = %(schema)s
    and (source_namespace, source_table) in
        (select n, t from unnest(%(namespaces)s::text[], %(tables)s::text[]) as x (n, t))

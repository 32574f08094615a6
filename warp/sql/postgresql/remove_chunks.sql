-- The chunks of tables that are snapshot anew.  Before the table row is locked: a chunk's writer
-- holds its marker when it asks for the table row, and the other order would be a deadlock.
with gone as (
    delete from {meta}.sync_markers
    where kind = 'chunk' and (schema_name, source_namespace, source_table) in
        (select * from unnest(%(schemas)s::text[], %(namespaces)s::text[], %(tables)s::text[]))
    returning unit
)
-- Nobody opens such a chunk again, so no successor would find the run of a killed worker.
update {meta}.sync_runs r set status = 'abandoned', ended_at = clock_timestamp()
from gone where r.unit = gone.unit and r.ended_at is null

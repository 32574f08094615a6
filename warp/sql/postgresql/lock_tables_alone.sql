-- As lock_tables_shared, for a transaction that changes a table's own row: nobody beside it.
select unit, epoch, phase, schema_version, truncated_at,
    exists (select 1 from {meta}.deferred_rows r where r.schema_name = m.schema_name
        and r.source_namespace = m.source_namespace and r.source_table = m.source_table)
from {meta}.sync_markers m where unit = any(%(units)s) order by unit for update of m

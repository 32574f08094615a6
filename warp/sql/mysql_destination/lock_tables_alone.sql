-- As lock_tables_shared, for a transaction that changes a table's own row: nobody beside it.
select unit, epoch, phase, schema_version, truncated_at
from {meta}.sync_markers where unit in %(units)s order by unit for update

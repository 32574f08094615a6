-- The tables a write transaction touches: many writers together, but no DDL and no settling
-- beside them.  Always in the order of the unit, so that two writers never wait for each other.  Says too whether
-- changes of the table wait in deferred_rows.
select unit, epoch, phase, schema_version, truncated_at,
    exists (select 1 from {meta}.deferred_rows r where r.schema_name = m.schema_name
        and r.source_namespace = m.source_namespace and r.source_table = m.source_table)
from {meta}.sync_markers m where unit = any(%(units)s) order by unit for share of m

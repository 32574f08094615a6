-- The tables a write transaction touches: many writers together, but no DDL and no settling
-- beside them.  Always in the order of the unit, so that two writers never wait for each other.
select unit, epoch, phase, schema_version, truncated_at
from {meta}.sync_markers where unit in %(units)s order by unit lock in share mode

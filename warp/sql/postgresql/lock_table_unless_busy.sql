-- As lock_tables_shared for one table more, out of their order: so it waits for nobody.
select unit, epoch, phase, schema_version, truncated_at, true
from {meta}.sync_markers where unit = %(unit)s for share skip locked

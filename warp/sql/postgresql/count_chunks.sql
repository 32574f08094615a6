-- How many chunks of the table's present snapshot are not done.  A table that was gone when its
-- snapshot was planned has none at all.
select count(*)
from {meta}.sync_markers
where kind = 'chunk' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s and epoch = %(epoch)s and phase <> 'done'

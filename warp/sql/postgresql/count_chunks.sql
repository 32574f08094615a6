-- How many chunks the table's present snapshot has, and how many are not done.
select count(*), count(*) filter (where phase <> 'done')
from {meta}.sync_markers
where kind = 'chunk' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s and epoch = %(epoch)s

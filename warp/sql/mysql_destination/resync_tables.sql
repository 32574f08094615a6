-- Chunk plans start over under a new epoch.
update {meta}.sync_markers
set epoch = epoch + 1, phase = 'planned', spec = null, updated_at = sysdate(6)
where kind = 'table' and schema_name = %(schema)s
    and (%(table)s is null or (source_namespace = %(namespace)s and source_table = %(table)s))

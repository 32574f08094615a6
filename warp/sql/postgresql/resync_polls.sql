-- A poll that starts over has no position.
update {meta}.sync_markers
set fence = fence + 1, epoch = epoch + 1, position = null, position_seconds = 0, phase = 'idle',
    updated_at = clock_timestamp()
where kind = 'poll' and schema_name = %(schema)s
    and (%(table)s::text is null
        or (source_namespace = %(namespace)s and source_table = %(table)s))

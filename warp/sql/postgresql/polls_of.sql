-- The polls that start over.
select source_namespace, source_table from {meta}.sync_markers
where kind = 'poll' and schema_name = %(schema)s
    and (%(table)s::text is null
        or (source_namespace = %(namespace)s and source_table = %(table)s))
for update

-- A new pass begins: what earlier ones have not done yet is not done any more.
delete from {meta}.sync_markers
where kind = 'verify' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s

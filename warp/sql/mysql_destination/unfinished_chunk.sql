-- One chunk of the table's present snapshot that is not done, if there is one.
select unit from {meta}.sync_markers
where kind = 'chunk' and schema_name = %(schema)s and source_namespace = %(namespace)s
    and source_table = %(table)s and epoch = %(epoch)s and phase <> 'done'
limit 1

-- As count_quarantine_as_older; its position still tells where that was.
update {meta}.deletion_audit set version = %(newest)s - 1
where source_namespace = %(namespace)s and source_table = %(table)s and version >= %(newest)s

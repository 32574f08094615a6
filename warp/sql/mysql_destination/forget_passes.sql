-- Of the earlier passes only the last one is remembered.
delete from {meta}.verifications
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
    and pass < %(last)s

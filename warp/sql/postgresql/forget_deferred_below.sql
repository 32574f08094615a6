-- What a truncation, or a snapshot that did not find the rows again, has made an end of.
delete from {meta}.deferred_rows
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
    and version < %(below)s

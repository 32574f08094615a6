-- Found anew, by this unit or for the same key: the new line takes the place of the old one.
delete from {meta}.differences
where state in ('open', 'repairing') and schema_name = %(schema)s
    and source_namespace = %(namespace)s and source_table = %(table)s
    and (unit = %(unit)s or `key` in %(keys)s)

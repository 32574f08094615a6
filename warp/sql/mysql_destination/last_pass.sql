-- The number of a table's last pass; null where there was none.
select max(pass) from {meta}.verifications
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s

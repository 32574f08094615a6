-- The same rows by their ids and sizes.
select id, octet_length(`row`) from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s and state = 'replaying'
    and schema_name = %(schema)s
order by version, id
limit %(limit)s

-- Of each key the latest row that waits in the quarantine for a person.
select distinct on (key) key, row from {meta}.quarantine
where source_namespace = %(namespace)s and source_table = %(table)s and schema_name = %(schema)s
    and state = 'waiting' and column_name = '' and key = any(%(keys)s)
order by key, id desc

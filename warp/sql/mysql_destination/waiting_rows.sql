-- Of each key the latest row that waits in the quarantine for a person.
select waits.`key`, waits.`row` from {meta}.quarantine waits
join (
    select max(id) as id from {meta}.quarantine
    where source_namespace = %(namespace)s and source_table = %(table)s
        and schema_name = %(schema)s and state = 'waiting' and column_name = ''
        and `key` in %(keys)s
    group by `key`
) latest on latest.id = waits.id

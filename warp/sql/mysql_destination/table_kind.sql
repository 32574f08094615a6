-- Is it there, is it a table, and how is it stored?
select table_type, engine from information_schema.tables
where table_schema = %(namespace)s and table_name = %(table)s

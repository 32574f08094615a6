-- Is there such a database?
select 1 from information_schema.schemata where schema_name = %(schema)s

-- A row that was found to differ, or is only at one of the two ends.
insert into {meta}.differences
    (unit, schema_name, source_namespace, source_table, pass, found_at, `key`, kinds, sort,
     `columns`, version)
values (%(unit)s, %(schema)s, %(namespace)s, %(table)s, %(pass)s, sysdate(6), %(key)s, %(kinds)s,
        %(sort)s, %(columns)s, %(version)s)

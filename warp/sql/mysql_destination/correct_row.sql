-- A row as it should be, on its way to its table by the same unit that lands rows out of quarantine.
insert into {meta}.quarantine
    (at, unit, schema_name, source_namespace, source_table, `key`, operation, `row`, reason, code,
     version, kinds, partial, column_name, state, decided_at, last_error)
values (sysdate(6), %(unit)s, %(schema)s, %(namespace)s, %(table)s, %(key)s, %(operation)s,
        %(row)s, %(reason)s, %(code)s, %(version)s, %(kinds)s, %(partial)s, '', 'replaying',
        sysdate(6), '')

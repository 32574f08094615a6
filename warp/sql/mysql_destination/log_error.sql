-- One line of the error log.
insert into {meta}.error_log
    (at, last_at, code, error_class, message, schema_name, unit, run, source_namespace,
     source_table, column_name, `key`, position, action)
values (sysdate(6), sysdate(6), %(code)s, %(error_class)s, %(message)s, %(schema)s, %(unit)s,
        %(run)s, %(namespace)s, %(table)s, %(column)s, %(key)s, %(position)s, %(action)s)

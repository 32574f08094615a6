-- One line of the error log.
insert into {meta}.error_log
    (code, error_class, message, unit, run, source_namespace, source_table, column_name, key,
     position, action)
values (%(code)s, %(error_class)s, %(message)s, %(unit)s, %(run)s, %(namespace)s, %(table)s,
        %(column)s, %(key)s, %(position)s, %(action)s)

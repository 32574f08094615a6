-- What happened to cells of a column, in the transaction of their batch: one line for each outcome
-- and type met, which counts every such cell and keeps the first as its example.
insert into {meta}.error_log
    (code, error_class, message, unit, schema_name, source_namespace, source_table, column_name,
     key, position, action, finding, cells, original_length)
values (%(code)s, 'Finding', %(message)s, %(unit)s, %(schema)s, %(namespace)s, %(table)s,
        %(column)s, %(key)s, %(position)s, %(action)s, %(finding)s, %(cells)s,
        %(original_length)s)
on conflict (finding) where finding is not null do update set
    cells = error_log.cells + excluded.cells,
    original_length = greatest(error_log.original_length, excluded.original_length),
    last_at = clock_timestamp()

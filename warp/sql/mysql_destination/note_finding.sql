-- What happened to cells of a column, in the transaction of their batch: one line for each outcome
-- and type met, which counts every such cell and keeps the first as its example.  By the hash of
-- what it says: an index takes no text as long as names may be.
insert into {meta}.error_log
    (at, last_at, code, error_class, message, unit, schema_name, source_namespace, source_table,
     column_name, `key`, position, action, finding, cells, original_length)
values (sysdate(6), sysdate(6), %(code)s, 'Finding', %(message)s, %(unit)s, %(schema)s,
        %(namespace)s, %(table)s, %(column)s, %(key)s, %(position)s, %(action)s,
        unhex(sha2(%(finding)s, 256)), %(cells)s, %(original_length)s)
on duplicate key update
    cells = cells + %(cells)s,
    original_length = greatest(coalesce(original_length, %(original_length)s),
        coalesce(%(original_length)s, original_length)),
    last_at = sysdate(6)

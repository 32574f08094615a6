-- A quarantined row or cell, in the transaction of the batch it came with (guarantees 1 and 4).
insert into {meta}.quarantine
    (unit, schema_name, source_namespace, source_table, key, operation, row, reason, code, version, kinds,
     partial, column_name, position, position_seconds, state, last_error, decided_at)
values (%(unit)s, %(schema)s, %(namespace)s, %(table)s, %(key)s, %(operation)s, %(row)s, %(reason)s, %(code)s,
        %(version)s, %(kinds)s, %(partial)s, %(column)s, %(position)s, %(position_seconds)s,
        %(state)s, %(why)s, case %(state)s when 'waiting' then null else clock_timestamp() end)

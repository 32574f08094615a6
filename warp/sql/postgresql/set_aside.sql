-- A quarantined row, in the transaction of the batch it came with (guarantees 1 and 4).
insert into {meta}.quarantine
    (unit, source_namespace, source_table, key, operation, row, reason, code, position,
     position_seconds)
values (%(unit)s, %(namespace)s, %(table)s, %(key)s, %(operation)s, %(row)s, %(reason)s, %(code)s,
        %(position)s, %(position_seconds)s)

-- A change that waits for another row, in the transaction of the batch it came with.  A newer change
-- of the key takes the place of an older one and goes on waiting since then; never the other way.
insert into {meta}.deferred_rows
    (unit, schema_name, source_namespace, source_table, constraint_name, parent_namespace,
     parent_table, waits_for, reason, code, key, operation, row, kinds, partial, version, position,
     position_seconds)
values (%(unit)s, %(schema)s, %(namespace)s, %(table)s, %(constraint)s, %(parent_namespace)s,
        %(parent_table)s, %(waits_for)s, %(reason)s, %(code)s, %(key)s, %(operation)s, %(row)s,
        %(kinds)s, %(partial)s, %(version)s, %(position)s, %(position_seconds)s)
on conflict (schema_name, source_namespace, source_table, key) do update set
    unit = excluded.unit, constraint_name = excluded.constraint_name,
    parent_namespace = excluded.parent_namespace, parent_table = excluded.parent_table,
    waits_for = excluded.waits_for, reason = excluded.reason, code = excluded.code,
    operation = excluded.operation, row = excluded.row, kinds = excluded.kinds,
    partial = excluded.partial, version = excluded.version, position = excluded.position,
    position_seconds = excluded.position_seconds
where deferred_rows.version <= excluded.version

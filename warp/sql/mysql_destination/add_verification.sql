-- A key range that is to be compared; one that is there already stays as it is.
insert into {meta}.verifications
    (unit, schema_name, source_namespace, source_table, pass, planned_at, repairs)
values (%(unit)s, %(schema)s, %(namespace)s, %(table)s, %(pass)s, sysdate(6), %(repairs)s)
on duplicate key update unit = unit

-- A unit's first marker.
insert into {meta}.sync_markers
    (unit, kind, schema_name, source_namespace, source_table, epoch, position, position_seconds,
     phase, spec)
values (%(unit)s, %(kind)s, %(schema)s, %(namespace)s, %(table)s, %(epoch)s, %(position)s,
        %(position_seconds)s, %(phase)s, %(spec)s)

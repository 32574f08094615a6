-- A unit's first marker.  A second one of the same unit changes nothing.
insert into {meta}.sync_markers as m
    (unit, kind, schema_name, source_namespace, source_table, epoch, position, position_seconds,
     phase, sweep_below, spec)
values (%(unit)s, %(kind)s, %(schema)s, %(namespace)s, %(table)s, %(epoch)s, %(position)s,
        %(position_seconds)s, %(phase)s, -1, %(spec)s)
on conflict (unit) do nothing

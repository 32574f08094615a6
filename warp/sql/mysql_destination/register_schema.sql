-- A table's schema as it is from now on, and where its stream stands.
insert into {meta}.schema_registry
    (unit, version, schema_name, source_namespace, source_table, destination_namespace,
     destination_table, `columns`, `key`, `change`, position, unfilled)
values (%(unit)s, %(version)s, %(schema)s, %(namespace)s, %(table)s, %(destination_namespace)s,
        %(destination_table)s, %(columns)s, %(key)s, %(change)s,
        (select position from {meta}.sync_markers where unit in %(streams)s
         order by updated_at desc limit 1), %(unfilled)s)

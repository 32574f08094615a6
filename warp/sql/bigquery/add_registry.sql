INSERT INTO {registry} (unit, version, schema_name, source_namespace, source_table,
    destination_dataset, destination_table, spec, change, noted_at)
VALUES ({unit}, {version}, {schema}, {namespace}, {table}, {dataset}, {name}, {spec}, {change},
    CURRENT_TIMESTAMP())

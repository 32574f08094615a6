INSERT INTO {quarantine} (id, noted_at, unit, schema_name, source_namespace, source_table, key,
    operation, row, reason, code, position, position_seconds, version, kinds, partial, column_name)
VALUES ({id}, CURRENT_TIMESTAMP(), {unit}, {schema}, {namespace}, {table}, {key}, {operation},
    {row}, {reason}, {code}, {position}, {position_seconds}, {version}, {kinds}, {partial},
    {column})

INSERT INTO {errors} (id, noted_at, code, error_class, message, schema_name, unit, run,
    source_namespace, source_table, column_name, key, position, action, finding, cells,
    original_length)
VALUES ({id}, CURRENT_TIMESTAMP(), {code}, {error_class}, {message}, {schema}, {unit}, {run},
    {namespace}, {table}, {column}, {key}, {position}, {action}, {finding}, {cells}, {length})

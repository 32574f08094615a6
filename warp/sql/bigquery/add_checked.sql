-- What one unit found.
INSERT INTO {verifications} (unit, noted_at, schema_name, source_namespace, source_table, pass,
    repairs, checked, row_count, digest, looks, aside, unsettled, position, position_seconds)
VALUES ({unit}, CURRENT_TIMESTAMP(), {schema}, {namespace}, {table}, {number}, {repairs}, TRUE,
    {rows}, {digest}, {looks}, {aside}, {unsettled}, {position}, {position_seconds})

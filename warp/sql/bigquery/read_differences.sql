-- Rows found to differ that nobody has repaired.
SELECT f.id, f.key, f.kinds, f.sort, f.column_names, f.version, f.noted_at, f.state
FROM {undecided} AS f
WHERE f.state = 'open' AND f.schema_name = {schema} AND f.source_namespace = {namespace}
    AND f.source_table = {table} AND f.id > {after} AND ({unit} = '' OR f.unit = {unit})
ORDER BY f.id

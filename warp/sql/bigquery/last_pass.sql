-- The number of a table's last pass; NULL where there was none.
SELECT MAX(v.pass) AS last
FROM {verifications} AS v
WHERE v.schema_name = {schema} AND v.source_namespace = {namespace} AND v.source_table = {table}

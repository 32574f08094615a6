-- Of a pass: what its units are to do, and whether they have done it.
SELECT v.unit, LOGICAL_OR(v.repairs) AS repairs, LOGICAL_OR(v.checked) AS checked
FROM {verifications} AS v
WHERE v.schema_name = {schema} AND v.source_namespace = {namespace} AND v.source_table = {table}
    AND v.pass = {number}
GROUP BY v.unit

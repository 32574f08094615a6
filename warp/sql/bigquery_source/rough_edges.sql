-- The same, guessed within a percent, for tables that no single worker could number.
SELECT DISTINCT key FROM (
  SELECT APPROX_QUANTILES({key}, {parts}) AS keys FROM {table} WHERE {key} IS NOT NULL
), UNNEST(keys) AS key WITH OFFSET AS place
WHERE place > 0 AND place < {parts}
ORDER BY key

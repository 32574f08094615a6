-- Every so-manieth key, but for the first: where one range of keys ends and the next begins.
SELECT DISTINCT key FROM (
  SELECT {key} AS key, ROW_NUMBER() OVER (ORDER BY {key}) AS place
  FROM {table} WHERE {key} IS NOT NULL
) WHERE place > 1 AND MOD(place - 1, {step}) = 0
ORDER BY key

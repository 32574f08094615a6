-- The highest version at which rows of these keys were deleted lately.
SELECT key, MAX(version) AS version
FROM {audit}
WHERE source_namespace = {namespace} AND source_table = {table} AND noted_at > {since}
    AND version >= 0 AND key IN UNNEST({keys})
GROUP BY key

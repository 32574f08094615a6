-- The source goes on with another count of versions: what was set aside under the old one is older.
UPDATE {quarantine} SET version = {newest} - 1
WHERE source_namespace = {namespace} AND source_table = {table} AND version >= {newest}

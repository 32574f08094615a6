UPDATE {audit} SET version = {newest} - 1
WHERE source_namespace = {namespace} AND source_table = {table} AND version >= {newest}

-- Found anew, by this unit or for the same key: the new line takes the place of the old one.
INSERT INTO {difference_decisions} (id, noted_at, state)
SELECT f.id, CURRENT_TIMESTAMP(), 'forgotten'
FROM {undecided} AS f
WHERE f.schema_name = {schema} AND f.source_namespace = {namespace} AND f.source_table = {table}
    AND (f.unit = {unit} OR f.key IN UNNEST({keys}))

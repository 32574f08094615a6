-- The tables of a dataset whose changes BigQuery keeps.
SELECT table_name FROM {dataset}.INFORMATION_SCHEMA.TABLE_OPTIONS
WHERE option_name = 'enable_change_history' AND LOWER(option_value) = 'true'

-- The tables of one schema of the configuration.
select source_namespace, source_table from {meta}.sync_markers
where kind = 'table' and schema_name = %(schema)s order by unit

-- One stream may carry tables of several schemas: which one a row is of, its unit does not tell.
alter table {meta}.quarantine add column schema_name text not null default '';
update {meta}.quarantine set schema_name = {meta}.schema_of(unit, source_namespace, source_table);
-- Null: the line is about its unit.
alter table {meta}.error_log add column schema_name text;

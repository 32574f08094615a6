-- The newest migration applied; the table is asked for by name because it may not exist yet.
select max(version) from {meta}.schema_version

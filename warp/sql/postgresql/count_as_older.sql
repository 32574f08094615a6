-- The source goes on with another count of versions, which is at `newest` now: what this table has
-- of the old one and is not below that counts as older.
with waiting as (
    update {meta}.deferred_rows set version = %(newest)s::bigint - 1
    where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
        and version >= %(newest)s
), aside as (
    update {meta}.quarantine set version = %(newest)s::bigint - 1
    where source_namespace = %(namespace)s and source_table = %(table)s
        and state in ('waiting', 'replaying') and version >= %(newest)s
), gone as (
    -- its position still tells where that was
    update {meta}.deletion_audit set version = %(newest)s::bigint - 1
    where source_namespace = %(namespace)s and source_table = %(table)s and version >= %(newest)s
)
update {meta}.sync_markers
set truncated_at = least(truncated_at, %(newest)s::bigint - 1), updated_at = clock_timestamp()
where unit = %(unit)s

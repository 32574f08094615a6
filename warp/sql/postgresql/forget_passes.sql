-- A new pass begins: what earlier ones have not done yet is not done any more, and of those only the
-- last one is remembered.
with markers as (
    delete from {meta}.sync_markers
    where kind = 'verify' and schema_name = %(schema)s and source_namespace = %(namespace)s
        and source_table = %(table)s
    returning unit
),
runs as (
    update {meta}.sync_runs r set status = 'abandoned', ended_at = clock_timestamp()
    from markers where r.unit = markers.unit and r.ended_at is null
)
delete from {meta}.verifications
where schema_name = %(schema)s and source_namespace = %(namespace)s and source_table = %(table)s
    and pass < %(last)s

-- Raise the fence in the destination: guarantee 2, first half.  A worker whose lease is not newer
-- than the one that stands here finds no row.
update {meta}.sync_markers
set fence = %(fence)s, owner = %(owner)s, updated_at = clock_timestamp()
where unit = %(unit)s and fence < %(fence)s
returning unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
    position_seconds, batch, rows, phase, extract(epoch from updated_at)::float8, schema_version,
    truncated_at, sweep_below, spec, spec ->> 'follows', extract(epoch from slot)::float8

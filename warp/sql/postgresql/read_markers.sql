-- All markers, or those of some kinds.
select unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
    position_seconds, batch, rows, phase, extract(epoch from updated_at)::float8, schema_version,
    truncated_at, sweep_below, spec, spec ->> 'follows', extract(epoch from slot)::float8
from {meta}.sync_markers
where cardinality(%(kinds)s::text[]) = 0 or kind = any(%(kinds)s)
order by unit

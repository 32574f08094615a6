-- All markers, or those of some kinds.
select unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
    position_seconds, batch, `rows`, phase, unix_timestamp(updated_at) + 0e0, schema_version,
    truncated_at, sweep_below, spec, follows, slot
from {meta}.sync_markers
where %(any_kind)s or kind in %(kinds)s
order by unit

-- A marker of a unit beside its table's own row.
INSERT INTO {group} (
    unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
    position_seconds, batch, row_count, phase, updated_at, schema_version, truncated_at,
    sweep_below, spec, writes, aside
) VALUES (
    {unit}, {kind}, {schema}, {namespace}, {table}, {fence}, '', {epoch}, {position},
    {position_seconds}, 0, 0, {phase}, CURRENT_TIMESTAMP(), 0, -1, -1, {spec}, 0, 0
)

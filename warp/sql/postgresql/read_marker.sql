-- One marker, waiting for a transaction that is about to change it: after a connection was lost
-- at COMMIT its server process may still be at work, and only its end tells the outcome.
select unit, kind, schema_name, source_namespace, source_table, fence, owner, epoch, position,
    position_seconds, batch, rows, phase, extract(epoch from updated_at)::float8, schema_version,
    truncated_at, sweep_below, spec, spec ->> 'follows', extract(epoch from slot)::float8
from {meta}.sync_markers where unit = %(unit)s for update

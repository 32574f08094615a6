-- A replay is wanted.  The fence grows, so that a worker about to end the unit looks again; what a
-- person paused stays so.
UPDATE {group}
SET phase = IF(phase = 'paused', phase, 'planned'), fence = fence + 1,
    updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit}

-- A phase set by hand.  The fence grows, so that a worker that is at it must adopt the unit anew.
UPDATE {group}
SET phase = IF(unit = {unit}, {phase}, phase), fence = IF(unit = {unit}, fence + 1, fence),
    writes = writes + 1, updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} OR kind = 'table'

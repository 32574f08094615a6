-- A phase set by hand.  The fence grows, so that a worker that is at it must adopt the unit
-- anew; above {seen} somebody has decided since.
UPDATE {group}
SET phase = IF(unit = {unit} AND fence <= {seen}, {phase}, phase),
    fence = IF(unit = {unit} AND fence <= {seen}, fence + 1, fence),
    writes = writes + 1, updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} OR kind = 'table'

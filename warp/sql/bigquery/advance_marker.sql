-- The compare-and-set that every transaction starts with: guarantee 2, second half.  The end of a
-- poll takes the slot its run was for.
UPDATE {group}
SET position = {position}, position_seconds = {position_seconds}, batch = {batch},
    row_count = {rows}, phase = {phase}, updated_at = CURRENT_TIMESTAMP(),
    slot = IF({ends}, IFNULL(run_slot, slot), slot),
    run_slot = IF({ends}, NULL, run_slot),
    run = IF({ends}, NULL, run)
WHERE unit = {unit} AND fence = {fence} AND batch = {batch} - 1

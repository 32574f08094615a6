-- A poll that starts over has no position.
UPDATE {group}
SET fence = fence + 1, epoch = epoch + 1, position = NULL, position_seconds = 0, phase = 'idle',
    updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit}

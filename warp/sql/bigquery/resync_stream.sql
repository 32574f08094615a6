-- The fence grows with the epoch: the running stream is shut out at once.
UPDATE {group}
SET fence = fence + 1, epoch = epoch + 1, position = {position},
    position_seconds = {position_seconds}, phase = 'streaming', writes = writes + 1,
    updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} AND fence = {fence} AND epoch = {epoch}

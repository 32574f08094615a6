-- Whoever is at this unit must adopt it anew, and sees what has become of its tables; it goes on
-- from its place, and what is paused or has failed stays so.
UPDATE {group}
SET fence = fence + 1, epoch = epoch + 1, writes = writes + 1, updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} AND fence = {fence} AND epoch = {epoch}

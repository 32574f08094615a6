-- A part of a batch that changes more tables than one transaction may: the same check, and the
-- marker stays where it is until the last part.
UPDATE {group}
SET updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} AND fence = {fence} AND batch = {batch} - 1

-- Raise the fence in the destination: guarantee 2, first half.  A worker whose lease is not newer
-- than the one that stands here finds no row.
UPDATE {group}
SET fence = {fence}, owner = {owner}, phase = IF(phase = 'unregistered', 'planned', phase),
    updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} AND fence < {fence}

-- What a stream carries from now on; whoever follows the log with another configuration is shut out.
UPDATE {group}
SET spec = {spec}, fence = fence + 1, writes = writes + 1, updated_at = CURRENT_TIMESTAMP()
WHERE unit = {unit} AND fence = {fence}

-- The table's id inside the engine, one for each partition: a truncation gives it a new one, and so
-- do changes that rebuild the table.  The engine has the table by its file's name.
select group_concat(i.table_id order by i.table_id)
from information_schema.{engine_tables} i where i.name regexp {pattern}

-- The table's id inside the engine, one for each partition: a truncation gives it a new one, and so
-- do changes that rebuild the table.
select group_concat(i.table_id order by i.table_id)
from information_schema.{engine_tables} i
cross join (select concat(
    cast(convert({database} using filename) as binary), '/',
    cast(convert({table} using filename) as binary)) as path) as w
where cast(i.name as binary) = w.path
    or left(cast(i.name as binary), length(w.path) + 1) = concat(w.path, '#')

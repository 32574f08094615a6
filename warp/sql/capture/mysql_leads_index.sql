-- Whether an index begins with the column, so that the newest rows are found by it.
select count(*) > 0 from information_schema.statistics
where table_schema = {database} and table_name = {table} and column_name = {column}
    and seq_in_index = 1

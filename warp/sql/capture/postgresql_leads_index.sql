-- Whether an index begins with the column, so that the newest rows are found by it.
select exists (
    select from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
    where i.indrelid = to_regclass({table}) and i.indisvalid and i.indpred is null
        and a.attname = {column})

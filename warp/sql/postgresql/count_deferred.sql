-- Rows that wait for other rows, by source table.
select source_namespace, source_table, count(*)
from {meta}.deferred_rows
group by source_namespace, source_table

-- Rows that wait for a person, by source table; those decided about count no more.
select source_namespace, source_table, count(*)
from {meta}.quarantine
where state = 'waiting'
group by source_namespace, source_table

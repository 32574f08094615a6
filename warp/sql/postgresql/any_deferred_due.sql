-- Is it any row's turn, of this schema?  Asked between transactions, so it locks nothing.
select exists (select 1 from {meta}.deferred_rows
    where schema_name = any(%(schemas)s)
    and tried_at + least(60, 2 ^ least(tries - 1, 6)) * interval '1s' < clock_timestamp())

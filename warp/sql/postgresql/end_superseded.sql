-- A worker that was paused inside its transaction still holds the marker's lock, and the server
-- cannot tell: while it waits for COPY data neither statement_timeout nor
-- idle_in_transaction_session_timeout ends it.  Its fence is older than ours, so it may only lose.
select pg_catalog.pg_terminate_backend(l.pid)
from {meta}.sync_markers m
join pg_catalog.pg_locks l
    on l.locktype = 'transactionid' and l.mode = 'ExclusiveLock' and l.granted
    and l.transactionid = m.xmax
where m.unit = %(unit)s and m.fence < %(fence)s and l.pid <> pg_catalog.pg_backend_pid()

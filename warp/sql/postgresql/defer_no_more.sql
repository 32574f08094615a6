-- Landed, overruled or set aside: they wait no more.
delete from {meta}.deferred_rows where id = any(%(ids)s)

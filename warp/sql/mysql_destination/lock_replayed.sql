-- The rows that a transaction is about to land, so that nobody decides otherwise meanwhile.
select id, column_name from {meta}.quarantine
where id in %(ids)s and state = 'replaying' order by id for update

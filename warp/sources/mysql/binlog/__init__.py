"""The binary log of MySQL and MariaDB: bytes of events -> rows as the carriers of our kinds.

Pure: no socket, no driver.  `events` frames and names, `table_map` and `rows` decode with code that
is made once per table, `values` says which kind a column is and how its cells are read,
`transactions` follows where a transaction begins and ends.
"""

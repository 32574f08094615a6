"""The binary log of MySQL and MariaDB: bytes of events -> rows as the carriers of our kinds.

Pure: no socket, no driver.  `events` frames and names, `table_map` and `rows` decode with code that
is made once per table, `values` says which kind a column is and how its cells are read,
`transactions` follows where a transaction begins and ends.

    machine = Transactions(wanted, place)   # wanted(table) -> Wanted, or None: not selected
    for event in events_of_the_dump:        # bytes, from the header to the checksum
        for step in machine.feed(event):    # Began, Rows, Noted, Ended, Heard
            ...                             # a marker may stand at Ended.place unless Ended.held

What the log does not say, and whoever follows it must know from elsewhere:

* which tables are sequences: their rows look like those of any table;
* which tables are system-versioned (MariaDB).  Their key ends in `row_end`; a row whose `row_end`
  is not the last moment there is belongs to history.  An UPDATE is written as an UPDATE and a
  CREATE of the row as it was; a DELETE as an UPDATE of `row_end`;
* which columns are uuid, inet4 or inet6 (MariaDB): `Wanted.types`;
* rows that foreign keys deleted or changed in other tables (MariaDB, and MySQL before 9), and rows
  that went with a partition (`Statement.partial`): they have no events at all.

Text may hold NUL and JSON may hold \\u0000, as at the source.
"""

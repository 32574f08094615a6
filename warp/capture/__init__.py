"""How any SQL source finds changes without its log: by a column of times, by triggers, or whole.

A connector plugs in by implementing `side.SqlSide` and forwarding `poll`, `poll_start` and
`acknowledge` to a `polled.Polled`.  `docs/capture.md` says what each strategy sees and misses.

Every row is delivered as an UPDATE, never as a READ: an UPDATE lands on rows of its own version
too.  A source's version need not have moved between two looks that saw different rows (a commit
is counted before it can be seen), and a READ of the newer look would then be dropped.  Versions
are read before the rows, so no row ever carries one that is too high.
"""

"""What every SQL destination does alike, whatever its server: the write transaction, the
bookkeeping, the quarantine.  A dialect gives its session, its statements (`warp/sql`) and what only
its server needs.
"""

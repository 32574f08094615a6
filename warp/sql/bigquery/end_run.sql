-- The first line that ends a run counts: one that a successor called abandoned stays so.
INSERT INTO {runs} (run, noted_at, status, row_count, error)
VALUES ({run}, CURRENT_TIMESTAMP(), {status}, {rows}, {error})

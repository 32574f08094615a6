-- What became of differences.  One that was decided stays so.
INSERT INTO {difference_decisions} (id, noted_at, state)
SELECT f.id, CURRENT_TIMESTAMP(), {state}
FROM {undecided} AS f
WHERE f.id IN UNNEST({ids})

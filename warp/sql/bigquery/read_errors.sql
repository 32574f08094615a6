-- Lines of the error log, the latest first; all lines of one finding are one, which counts their
-- cells and tells the first.
SELECT e.id, e.noted_at, e.last_at, e.code, e.error_class, e.message, e.schema_name, e.unit,
    e.source_namespace, e.source_table, e.column_name, e.key, e.position, e.action, e.cells,
    e.original_length
FROM (
    SELECT *, noted_at AS last_at FROM {errors} WHERE finding IS NULL
    UNION ALL
    SELECT * EXCEPT (cells, original_length), SUM(cells) OVER same AS cells,
        MAX(original_length) OVER same AS original_length, MAX(noted_at) OVER same AS last_at
    FROM {errors}
    WHERE finding IS NOT NULL
    QUALIFY ROW_NUMBER() OVER (PARTITION BY finding ORDER BY id) = 1
    WINDOW same AS (PARTITION BY finding)
) AS e
WHERE {conditions}
ORDER BY e.last_at DESC, e.id DESC

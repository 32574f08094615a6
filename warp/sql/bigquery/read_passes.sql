-- The last two passes of each table, the newest first.  Of a unit that was compared twice the last
-- time counts.
SELECT p.schema_name, p.source_namespace, p.source_table, p.pass, p.planned_at, p.units,
    IFNULL(c.done, 0) AS done, IFNULL(c.row_count, 0) AS row_count, IFNULL(c.aside, 0) AS aside,
    IFNULL(c.unsettled, 0) AS unsettled, c.oldest, c.newest, c.digests,
    IFNULL(f.differences, 0) AS differences
FROM (
    SELECT schema_name, source_namespace, source_table, pass, MIN(noted_at) AS planned_at,
        COUNT(DISTINCT unit) AS units
    FROM {verifications}
    WHERE NOT checked AND {conditions}
    GROUP BY schema_name, source_namespace, source_table, pass
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY schema_name, source_namespace, source_table ORDER BY pass DESC
    ) <= 2
) AS p
LEFT JOIN (
    SELECT schema_name, source_namespace, source_table, pass, COUNT(*) AS done,
        SUM(row_count) AS row_count, SUM(aside) AS aside, SUM(unsettled) AS unsettled,
        MIN(noted_at) AS oldest, MAX(noted_at) AS newest, STRING_AGG(digest, ',') AS digests
    FROM (
        SELECT * FROM {verifications}
        WHERE checked AND {conditions}
        QUALIFY ROW_NUMBER() OVER (PARTITION BY unit ORDER BY noted_at DESC) = 1
    )
    GROUP BY schema_name, source_namespace, source_table, pass
) AS c
ON c.schema_name = p.schema_name AND c.source_namespace = p.source_namespace
    AND c.source_table = p.source_table AND c.pass = p.pass
LEFT JOIN (
    SELECT schema_name, source_namespace, source_table, pass, COUNT(*) AS differences
    FROM {undecided}
    WHERE {conditions}
    GROUP BY schema_name, source_namespace, source_table, pass
) AS f
ON f.schema_name = p.schema_name AND f.source_namespace = p.source_namespace
    AND f.source_table = p.source_table AND f.pass = p.pass
ORDER BY p.schema_name, p.source_namespace, p.source_table, p.pass DESC

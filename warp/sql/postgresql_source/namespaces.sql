-- The schemas a person made: none of the server's own, and nobody's temporary ones.
SELECT nspname::text
FROM pg_catalog.pg_namespace
WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
ORDER BY 1

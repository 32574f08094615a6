-- Invisible and generated columns, an invisible key, columns added and removed at once, VECTOR.
CREATE TABLE hidden (id INT PRIMARY KEY, a INT INVISIBLE, b INT AS (id * 2) STORED, c INT AS (id * 3) VIRTUAL, v VECTOR(4));
INSERT INTO hidden (id, a, v) VALUES (1, 10, STRING_TO_VECTOR('[1,2,3,4]')), (2, NULL, NULL);
ALTER TABLE hidden ADD COLUMN first_one VARCHAR(10) DEFAULT 'dflt' FIRST, ALGORITHM = INSTANT;
UPDATE hidden SET a = 11 WHERE id = 1;
ALTER TABLE hidden DROP COLUMN b, ALGORITHM = INSTANT;
INSERT INTO hidden (id, a, first_one) VALUES (3, 30, 'third');
UPDATE hidden SET first_one = 'x', a = 5 WHERE id = 2;
SET SESSION sql_generate_invisible_primary_key = ON;
CREATE TABLE keyless (name VARCHAR(20));
INSERT INTO keyless VALUES ('one'), ('two');
UPDATE keyless SET name = 'TWO' WHERE name = 'two';
DELETE FROM keyless WHERE name = 'one';
SET SESSION sql_generate_invisible_primary_key = OFF;

-- Transactions compressed together (TRANSACTION_PAYLOAD), among ones that are not.
CREATE TABLE c (id INT PRIMARY KEY, v VARCHAR(100), n DECIMAL(10,2));
CREATE TABLE other (id INT PRIMARY KEY, v VARCHAR(100));
INSERT INTO c VALUES (1, 'plain', 1);
SET SESSION binlog_transaction_compression = ON;
START TRANSACTION;
INSERT INTO c SELECT n + 10, REPEAT(CONCAT('row ', n), 10), n / 7 FROM (WITH RECURSIVE r(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM r WHERE n < 300) SELECT n FROM r) q;
INSERT INTO other VALUES (1, REPEAT('o', 100));
UPDATE c SET v = 'updated' WHERE id = 1;
UPDATE c SET id = 2 WHERE id = 1;
DELETE FROM c WHERE id > 200;
COMMIT;
SET SESSION binlog_transaction_compression = OFF;
INSERT INTO c VALUES (5, 'plain again', -1);

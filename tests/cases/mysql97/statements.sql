-- Changes that are in the log as statements.
CREATE TABLE s (id INT PRIMARY KEY, v INT);
CREATE TABLE ignored (id INT PRIMARY KEY, v INT);
SET SESSION binlog_format = STATEMENT;
INSERT INTO ignored VALUES (1, 1);
INSERT INTO s VALUES (1, 1);
SET SESSION binlog_format = ROW;

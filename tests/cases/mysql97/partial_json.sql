-- Parts of JSON values: refused for a table that is wanted, passed over for one that is not.
CREATE TABLE j (id INT PRIMARY KEY, j JSON);
INSERT INTO j VALUES (1, JSON_OBJECT('a', REPEAT('x', 300), 'b', 1));
SET SESSION binlog_row_value_options = PARTIAL_JSON;
UPDATE j SET j = JSON_SET(j, '$.b', 2) WHERE id = 1;
SET SESSION binlog_row_value_options = '';

-- XA transactions: committed after another one, rolled back, in one phase.
CREATE TABLE x (id INT PRIMARY KEY, v VARCHAR(20));
XA START 'first','branch',7;
INSERT INTO x VALUES (1, 'held'), (2, 'held');
XA END 'first','branch',7;
XA PREPARE 'first','branch',7;
INSERT INTO x VALUES (3, 'between');
XA START 'second';
INSERT INTO x VALUES (4, 'never');
XA END 'second';
XA PREPARE 'second';
XA COMMIT 'first','branch',7;
XA ROLLBACK 'second';
XA START 'third';
INSERT INTO x VALUES (5, 'one phase');
XA END 'third';
XA COMMIT 'third' ONE PHASE;
UPDATE x SET v = 'after' WHERE id = 1;

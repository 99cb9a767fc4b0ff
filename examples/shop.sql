CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer INTEGER REFERENCES customer (id), item TEXT, price REAL);
INSERT INTO customer VALUES (1, 'Ada', 'London'), (2, 'Emmy', 'Erlangen'), (3, 'Sofia', 'Stockholm'), (4, 'Grace', 'London');
INSERT INTO purchase VALUES (1, 1, 'lamp', 30), (2, 1, 'desk', 200), (3, 2, 'lamp', 30), (4, 3, 'chair', 80), (5, 3, 'lamp', 30);

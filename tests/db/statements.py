"""Statements in the syntax of several databases, with the operation and main table that a reader finds in them.

Ordinary ones first, then HARD ones. A row whose dialect ends in ``!`` is not compared with sqlglot, which does not
parse it or reads it as something else; the test notices when that changes.
"""

from __future__ import annotations

from typing import NamedTuple


class Case(NamedTuple):
    dialect: str
    sql: str
    operation: str
    table: str


def _cases(text: str) -> list[Case]:
    """``dialect | operation | table | sql``, a line each; ``\\n`` in a statement is a line break."""
    rows = [line.split(" | ", 3) for line in text.strip().splitlines() if line.strip()]
    return [Case(d.strip(), sql.replace("\\n", "\n"), o.strip(), t.strip()) for d, o, t, sql in rows]


ORDINARY = _cases("""
postgres  | SELECT | messages          | SELECT * FROM messages
postgres  | SELECT | messages          | select id, text from messages where id = 7
postgres  | SELECT | billing.invoices  | SELECT i.id FROM billing.invoices AS i WHERE i.paid
postgres  | SELECT | shop.public.users | SELECT * FROM shop.public.users
postgres  | SELECT | messages          | SELECT count(*) FROM messages GROUP BY user_id HAVING count(*) > 3 ORDER BY 1 LIMIT 5
postgres  | SELECT | messages          | SELECT m.id FROM messages m JOIN users u ON u.id = m.user_id
postgres  | SELECT | messages          | SELECT m.id FROM messages m, users u WHERE u.id = m.user_id
postgres  | SELECT | users             | SELECT * FROM users LEFT OUTER JOIN messages USING (user_id)
postgres  | SELECT | users             | SELECT * FROM users NATURAL JOIN messages
postgres  | SELECT | unknown           | SELECT 1
postgres  | SELECT | unknown           | SELECT now(), current_user
postgres  | SELECT | unknown           | SELECT pg_catalog.version()
postgres  | SELECT | messages          | SELECT DISTINCT user_id FROM messages
postgres  | SELECT | messages          | SELECT * FROM messages FOR UPDATE SKIP LOCKED
postgres  | SELECT | messages          | SELECT id FROM messages UNION SELECT id FROM users
postgres  | INSERT | messages          | INSERT INTO messages (id, text) VALUES ($1, $2)
postgres  | INSERT | messages          | INSERT INTO messages DEFAULT VALUES
postgres  | INSERT | messages          | INSERT INTO messages VALUES (1, 'a'), (2, 'b') RETURNING id
postgres  | UPDATE | messages          | UPDATE messages SET text = 'x' WHERE id = 1
postgres  | UPDATE | messages          | UPDATE messages AS m SET text = 'x' WHERE m.id = 1 RETURNING m.id
postgres  | DELETE | messages          | DELETE FROM messages WHERE id = 1
postgres  | DELETE | messages          | DELETE FROM messages
postgres  | OTHER  | messages          | CREATE TABLE messages (id int primary key)
postgres  | OTHER  | billing.invoices  | CREATE TABLE IF NOT EXISTS billing.invoices (id int)
postgres  | OTHER  | messages          | ALTER TABLE messages ADD COLUMN x int
postgres  | OTHER  | messages          | DROP TABLE messages
postgres  | OTHER  | messages          | DROP TABLE IF EXISTS messages CASCADE
postgres  | OTHER  | messages          | CREATE INDEX i ON messages (user_id)
postgres  | OTHER  | recent            | CREATE VIEW recent AS SELECT * FROM messages
postgres  | OTHER  | messages          | TRUNCATE TABLE messages
postgres! | OTHER  | unknown           | BEGIN
postgres! | OTHER  | unknown           | COMMIT
postgres! | OTHER  | unknown           | ROLLBACK TO SAVEPOINT a
postgres! | OTHER  | unknown           | SAVEPOINT sa_savepoint_1
postgres! | OTHER  | unknown           | RELEASE SAVEPOINT sa_savepoint_1
postgres! | OTHER  | unknown           | SET LOCAL statement_timeout = 100
postgres! | OTHER  | unknown           | SHOW standard_conforming_strings
postgres! | OTHER  | unknown           | CALL refresh_all(1)
mysql     | SELECT | messages          | SELECT `id` FROM `messages` WHERE `text` = "from users"
mysql     | SELECT | shop.messages     | SELECT * FROM `shop`.`messages` LIMIT 5, 10
mysql!    | INSERT | messages          | INSERT INTO messages (id) VALUES (%s)
mysql     | UPDATE | messages          | UPDATE messages SET text = 'x' ORDER BY id LIMIT 1
mysql     | DELETE | messages          | DELETE FROM messages ORDER BY id LIMIT 1
mysql!    | INSERT | messages          | REPLACE INTO messages (id) VALUES (1)
sqlite    | SELECT | messages          | SELECT * FROM messages WHERE id = ?
sqlite    | SELECT | sqlite_master     | SELECT name FROM sqlite_master WHERE type = 'table'
sqlite    | INSERT | messages          | INSERT OR REPLACE INTO messages (id) VALUES (?)
sqlite    | INSERT | messages          | INSERT OR IGNORE INTO messages (id) VALUES (?)
sqlite    | DELETE | messages          | DELETE FROM messages WHERE id IN (?, ?, ?)
sqlite!   | OTHER  | unknown           | PRAGMA main.table_info("messages")
sqlite!   | OTHER  | unknown           | PRAGMA foreign_keys = ON
tsql      | SELECT | dbo.messages      | SELECT TOP 5 id FROM dbo.messages
tsql      | SELECT | dbo.Order Details | SELECT [id] FROM [dbo].[Order Details]
tsql      | INSERT | messages          | INSERT INTO messages (id) OUTPUT inserted.id VALUES (1)
tsql      | DELETE | messages          | DELETE FROM messages WHERE id = @id
tsql!     | OTHER  | unknown           | EXEC sp_who
oracle    | SELECT | dual              | SELECT sysdate FROM dual
oracle    | INSERT | messages          | INSERT INTO messages (id) VALUES (:id)
""")

HARD = _cases(r"""
postgres  | SELECT | messages | WITH recent AS (SELECT * FROM messages WHERE id > 5) SELECT * FROM recent
postgres  | SELECT | messages | WITH a AS (SELECT * FROM messages), b AS (SELECT * FROM a) SELECT * FROM b JOIN users ON true
postgres  | SELECT | users    | WITH a AS (SELECT * FROM messages) SELECT * FROM users JOIN a ON a.user_id = users.id
postgres  | SELECT | nodes    | WITH RECURSIVE t(n) AS (SELECT id FROM nodes UNION ALL SELECT n + 1 FROM t) SELECT n FROM t
postgres  | SELECT | messages | WITH a AS (WITH b AS (SELECT * FROM messages) SELECT * FROM b) SELECT * FROM a
postgres  | SELECT | messages | WITH a AS MATERIALIZED (SELECT * FROM messages) SELECT * FROM a
postgres  | SELECT | messages | WITH a AS NOT MATERIALIZED (SELECT * FROM messages) SELECT * FROM a
postgres  | SELECT | messages | WITH users AS (SELECT * FROM messages) SELECT * FROM users
postgres  | SELECT | users    | WITH x AS (SELECT 1) SELECT * FROM x, users
postgres  | DELETE | messages | WITH gone AS (DELETE FROM messages WHERE id < 5 RETURNING *) SELECT count(*) FROM gone
postgres  | INSERT | archive  | WITH gone AS (DELETE FROM messages RETURNING *) INSERT INTO archive SELECT * FROM gone
postgres  | UPDATE | messages | WITH up AS (UPDATE messages SET text = 'x' RETURNING id) SELECT * FROM users WHERE id IN (SELECT id FROM up)
postgres  | INSERT | log      | WITH a AS (SELECT * FROM users), b AS (INSERT INTO log SELECT id FROM a RETURNING id) SELECT * FROM b
postgres  | DELETE | messages | WITH a AS (SELECT id FROM users) DELETE FROM messages WHERE user_id IN (SELECT id FROM a)
postgres  | UPDATE | messages | WITH a AS (SELECT id FROM users) UPDATE messages SET text = 'x' FROM a WHERE a.id = messages.user_id
postgres  | DELETE | messages | WITH a AS (WITH b AS (DELETE FROM messages RETURNING id) SELECT * FROM b) SELECT * FROM a
postgres  | INSERT | archive  | INSERT INTO archive SELECT * FROM messages WHERE id < 5
postgres  | INSERT | archive  | INSERT INTO archive (id) WITH a AS (SELECT id FROM messages) SELECT id FROM a
postgres  | INSERT | messages | INSERT INTO messages (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET text = excluded.text
postgres  | INSERT | messages | INSERT INTO messages (id) VALUES (1) ON CONFLICT DO NOTHING
postgres  | UPDATE | messages | UPDATE messages SET text = users.name FROM users WHERE users.id = messages.user_id
postgres  | UPDATE | messages | UPDATE ONLY messages SET text = 'x'
postgres  | UPDATE | messages | UPDATE messages SET text = (SELECT name FROM users LIMIT 1)
postgres  | DELETE | messages | DELETE FROM messages USING users WHERE users.id = messages.user_id
postgres  | DELETE | messages | DELETE FROM ONLY messages WHERE id = 1
postgres  | UPDATE | stock    | MERGE INTO stock USING orders ON stock.id = orders.id WHEN MATCHED THEN UPDATE SET n = 1 WHEN NOT MATCHED THEN INSERT VALUES (1)
postgres  | SELECT | My Table | SELECT * FROM "My Table" WHERE "from" = 1
postgres  | SELECT | Billing.In.voices | SELECT * FROM "Billing"."In.voices"
postgres  | SELECT | a"b      | SELECT * FROM "a""b"
postgres  | SELECT | messages | /* FROM users */ SELECT * /* , FROM users */ FROM messages -- WHERE x FROM y
postgres  | SELECT | messages | -- first a comment\nSELECT * -- FROM users\nFROM messages
postgres  | SELECT | messages | SELECT /* outer /* inner FROM users */ still */ * FROM messages
postgres  | SELECT | messages | SELECT 'x FROM users', '--', '/*' FROM messages
postgres  | SELECT | messages | SELECT 'it''s FROM users' FROM messages
postgres  | SELECT | messages | SELECT E'it\'s FROM users' FROM messages
postgres  | SELECT | messages | SELECT $$ FROM users $$, $tag$ FROM $$ users $tag$ FROM messages
postgres  | INSERT | messages | INSERT INTO messages (text) VALUES ('DELETE FROM users; DROP TABLE users')
postgres  | SELECT | messages | (SELECT id FROM messages) UNION (SELECT id FROM users) ORDER BY 1
postgres  | SELECT | messages | SELECT * FROM (SELECT * FROM messages UNION ALL SELECT * FROM archive) AS both_of_them
postgres  | SELECT | messages | SELECT * FROM (SELECT * FROM (SELECT * FROM messages) AS a) AS b JOIN users ON true
postgres! | SELECT | messages | SELECT * FROM ((messages JOIN users ON true) JOIN plans ON true)
postgres  | SELECT | users    | SELECT * FROM users, LATERAL (SELECT * FROM messages WHERE user_id = users.id) AS m
postgres  | SELECT | users    | SELECT u.id, (SELECT count(*) FROM messages) FROM users AS u
postgres  | SELECT | users    | SELECT u.id, EXISTS (SELECT 1 FROM messages) FROM users AS u
postgres  | SELECT | unknown  | SELECT EXISTS (SELECT 1 FROM messages)
postgres  | SELECT | messages | SELECT EXTRACT(YEAR FROM created_at) FROM messages
postgres  | SELECT | messages | SELECT SUBSTRING(text FROM 2 FOR 3), TRIM(BOTH 'x' FROM text) FROM messages
postgres  | SELECT | messages | SELECT a IS DISTINCT FROM b, a IS NOT DISTINCT FROM c FROM messages
postgres  | SELECT | messages | SELECT DISTINCT ON (user_id) user_id, id FROM messages ORDER BY user_id
postgres  | SELECT | messages | SELECT id, row_number() OVER (PARTITION BY user_id ORDER BY id) FROM messages
postgres  | SELECT | messages | SELECT array_agg(id ORDER BY id) FILTER (WHERE id > 1) FROM messages
postgres  | SELECT | messages | SELECT ARRAY[1, 2], tags[1] FROM messages
postgres  | SELECT | messages | SELECT text::varchar, data ->> 'from' FROM messages
postgres  | SELECT | users    | SELECT * FROM generate_series(1, 3) AS g, users
postgres  | SELECT | unknown  | SELECT * FROM generate_series(1, 3) AS g
postgres  | SELECT | unknown  | SELECT * FROM unnest(ARRAY[1, 2]) AS t
postgres  | SELECT | unknown  | SELECT * FROM (VALUES (1, 2)) AS v (a, b)
postgres  | SELECT | messages | SELECT * FROM messages TABLESAMPLE SYSTEM (10)
postgres  | SELECT | messages | SELECT * INTO newest FROM messages
postgres  | SELECT | messages | TABLE messages
postgres  | SELECT | messages | SELECT * FROM ONLY messages
postgres  | SELECT | messages | ;;  SELECT * FROM messages; DELETE FROM users
postgres! | OTHER  | messages | COPY messages (id, text) FROM STDIN WITH (FORMAT csv)
postgres! | OTHER  | messages | COPY (SELECT * FROM messages) TO STDOUT
postgres! | OTHER  | messages | EXPLAIN (ANALYZE, BUFFERS) SELECT * FROM messages
postgres! | OTHER  | messages | EXPLAIN ANALYZE VERBOSE DELETE FROM messages
postgres! | OTHER  | messages | LOCK TABLE ONLY messages IN EXCLUSIVE MODE
postgres! | OTHER  | messages | VACUUM (FULL, ANALYZE) messages
postgres! | OTHER  | messages | REFRESH MATERIALIZED VIEW CONCURRENTLY messages
postgres! | OTHER  | messages | GRANT SELECT, UPDATE ON TABLE messages TO bob
postgres! | OTHER  | messages | COMMENT ON COLUMN messages.text IS 'from users'
postgres  | OTHER  | messages | CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS i ON messages (id)
postgres! | OTHER  | messages | DECLARE c CURSOR FOR SELECT * FROM messages
postgres! | OTHER  | unknown  | VALUES (1, 2)
postgres! | OTHER  | unknown  | SELEC * FROM messages
mysql     | SELECT | messages | SELECT /*+ NO_INDEX_MERGE(users) */ * FROM messages USE INDEX (i)
mysql     | SELECT | messages | SELECT 'it\'s FROM users', "say \"FROM users\"" FROM messages
mysql     | SELECT | messages | SELECT * # FROM users\nFROM messages
mysql     | SELECT | a`b      | SELECT * FROM `a``b`
mysql     | INSERT | messages | INSERT INTO messages (id) VALUES (1) ON DUPLICATE KEY UPDATE text = VALUES(text)
mysql     | INSERT | messages | INSERT IGNORE INTO messages (id) SELECT id FROM users
mysql!    | INSERT | messages | INSERT LOW_PRIORITY IGNORE INTO messages SET id = 1
mysql     | UPDATE | messages | UPDATE messages JOIN users ON users.id = messages.user_id SET messages.text = users.name
mysql!    | UPDATE | messages | UPDATE LOW_PRIORITY IGNORE messages SET text = 'x'
mysql     | DELETE | messages | DELETE messages, users FROM messages INNER JOIN users ON users.id = messages.user_id
mysql     | DELETE | messages | DELETE m FROM messages AS m JOIN users AS u ON u.id = m.user_id
mysql!    | OTHER  | messages | OPTIMIZE TABLE messages
mysql     | SELECT | messages | SELECT STRAIGHT_JOIN * FROM messages STRAIGHT_JOIN users
sqlite!   | UPDATE | messages | UPDATE OR ROLLBACK messages SET text = ?
sqlite    | SELECT | messages | SELECT * FROM messages INDEXED BY i WHERE id = :id
sqlite    | SELECT | messages | SELECT * FROM [messages] JOIN `users`
sqlite    | INSERT | messages | WITH a(x) AS (SELECT 1) INSERT INTO messages SELECT x FROM a
tsql      | SELECT | messages | SELECT * FROM messages WITH (NOLOCK) WHERE id = 1
tsql      | SELECT | messages | SELECT TOP (10) WITH TIES * FROM messages ORDER BY id
tsql      | SELECT | users    | SELECT * FROM users CROSS APPLY (SELECT TOP 1 * FROM messages) AS m
tsql!     | UPDATE | messages | UPDATE m SET text = 'x' FROM messages AS m JOIN users AS u ON u.id = m.user_id
tsql!     | UPDATE | messages | UPDATE TOP (5) messages SET text = 'x'
tsql      | DELETE | messages | DELETE m FROM dbo.users AS u JOIN messages AS m ON u.id = m.user_id
tsql!     | DELETE | messages | DELETE TOP (5) FROM messages
tsql!     | UPDATE | messages | WITH a AS (SELECT * FROM messages) UPDATE a SET text = 'x'
tsql      | UPDATE | stock    | MERGE stock AS t USING orders AS s ON t.id = s.id WHEN MATCHED THEN DELETE;
oracle    | SELECT | messages | SELECT /*+ FULL(users) */ * FROM messages START WITH id = 1 CONNECT BY PRIOR id = parent
oracle    | SELECT | messages | SELECT * FROM (SELECT m.*, ROWNUM r FROM messages m) WHERE r > 5
oracle!   | INSERT | messages | INSERT ALL INTO messages (id) VALUES (1) INTO users (id) VALUES (2) SELECT * FROM dual
oracle    | SELECT | messages | SELECT id FROM messages MINUS SELECT id FROM users
""")

ALL = ORDINARY + HARD

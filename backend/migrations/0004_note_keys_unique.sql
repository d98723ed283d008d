-- no-transaction
-- One key, one note, whoever is faster: concurrent requests meet here.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS notes_request_key ON notes (account_id, request_key)
    WHERE request_key IS NOT NULL;

-- Videos that were asked for: a job each, and for a day its result, whose bytes are the file
-- videos/ID in the data directory. Prompts are not kept. Times are milliseconds since 1970-01-01
-- UTC.

CREATE TABLE videos (
    -- Ids are time-ordered: a user's videos by id are a user's videos by age.
    id              TEXT    PRIMARY KEY,
    user_id         TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    seconds         TEXT,
    size            TEXT,
    status          TEXT    NOT NULL CHECK (status IN ('running', 'completed', 'failed')),
    created_at_ms   INTEGER NOT NULL,
    completed_at_ms INTEGER,
    expires_at_ms   INTEGER NOT NULL,
    error_code      TEXT,
    error_message   TEXT,
    media_type      TEXT,
    -- Of the file; NULL where there is none, or not any more.
    bytes           INTEGER CHECK (bytes >= 0),
    -- Of a request with an Idempotency-Key.
    idempotency_key TEXT,
    request_hash    BLOB
) WITHOUT ROWID, STRICT;
CREATE INDEX videos_by_user ON videos (user_id, id);
CREATE INDEX videos_by_expiry ON videos (expires_at_ms);
CREATE UNIQUE INDEX videos_by_key ON videos (user_id, idempotency_key)
    WHERE idempotency_key IS NOT NULL;

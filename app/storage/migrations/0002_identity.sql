-- Who may call, and with what. Times are milliseconds since 1970-01-01 UTC.

CREATE TABLE users (
    id            TEXT    PRIMARY KEY,
    name          TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    tier          TEXT    NOT NULL,
    role          TEXT    NOT NULL CHECK (role IN ('owner', 'member')),
    created_at_ms INTEGER NOT NULL
) STRICT;

-- A key reads tp_PREFIX_SECRETCHECK. Only the prefix and a digest of the secret are kept.
CREATE TABLE api_keys (
    id              TEXT    PRIMARY KEY,
    user_id         TEXT    NOT NULL REFERENCES users (id),
    name            TEXT    NOT NULL,
    prefix          TEXT    NOT NULL UNIQUE CHECK (length(prefix) >= 8),
    secret_hash     BLOB    NOT NULL CHECK (length(secret_hash) = 32),
    created_at_ms   INTEGER NOT NULL,
    revoked_at_ms   INTEGER,
    last_used_at_ms INTEGER
) STRICT;

CREATE INDEX api_keys_by_user ON api_keys (user_id);

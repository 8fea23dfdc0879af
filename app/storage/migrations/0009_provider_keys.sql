-- Users' and orgs' own keys at providers, sealed. Times are milliseconds since 1970-01-01 UTC.

-- The master keys that something here is sealed under; the keys themselves are never in here.
CREATE TABLE master_keys (
    -- The first half of a SHA-256 of the key, as hexadecimal digits.
    kid              TEXT    PRIMARY KEY CHECK (length(kid) = 16),
    -- A known text, sealed: tells whether a key is really the one.
    check_value      BLOB    NOT NULL,
    first_used_at_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TABLE provider_keys (
    -- A user's id or an org's.
    owner_id          TEXT    NOT NULL,
    provider          TEXT    NOT NULL,
    id                TEXT    NOT NULL UNIQUE,
    -- The row's own data key, wrapped by the master key `kid`, and the secret, sealed by the data
    -- key. Both are bound to owner, provider, id, hint, paid_fallback, set_by and created_at_ms:
    -- a row with any of these changed no longer opens.
    kid               TEXT    NOT NULL REFERENCES master_keys (kid),
    wrapped_key       BLOB    NOT NULL,
    box               BLOB    NOT NULL,
    -- The secret's last four characters, where it is long enough to tell them.
    hint              TEXT,
    -- 1: when this key fails, the call may go on at the payer's expense.
    paid_fallback     INTEGER NOT NULL CHECK (paid_fallback IN (0, 1)),
    set_by            TEXT    NOT NULL,
    created_at_ms     INTEGER NOT NULL,
    last_used_at_ms   INTEGER,
    last_failed_at_ms INTEGER,
    last_failure      TEXT,
    PRIMARY KEY (owner_id, provider)
) WITHOUT ROWID, STRICT;
CREATE INDEX provider_keys_by_kid ON provider_keys (kid);

-- Money and what it was spent on. Amounts are integer nano-USD, times milliseconds since
-- 1970-01-01 UTC, periods UTC months as YYYY-MM. app/ledger/README.md explains every table.

-- Holders of debits and credits. `owner_id` is a payer or 'house'; '' is no period.
CREATE TABLE accounts (
    id       INTEGER PRIMARY KEY,
    owner_id TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    period   TEXT    NOT NULL,
    UNIQUE (owner_id, kind, period)
) STRICT;

INSERT INTO accounts (id, owner_id, kind, period) VALUES
    (1, 'house', 'granted', ''),
    (2, 'house', 'cogs', ''),
    (3, 'house', 'overrun', ''),
    (4, 'house', 'forgiven', '');

-- The journal. One row moves one amount from one account to another, so debits equal credits.
-- `subject` is the call or grant that the entry belongs to: it has at most one entry of each kind.
CREATE TABLE entries (
    seq               INTEGER PRIMARY KEY,
    at_ms             INTEGER NOT NULL,
    kind              TEXT    NOT NULL,
    subject           TEXT    NOT NULL,
    debit_account_id  INTEGER NOT NULL REFERENCES accounts (id),
    credit_account_id INTEGER NOT NULL REFERENCES accounts (id),
    amount_nano_usd   INTEGER NOT NULL CHECK (amount_nano_usd > 0),
    CHECK (debit_account_id <> credit_account_id),
    UNIQUE (subject, kind)
) STRICT;

-- One payer's month, kept up to date beside the journal. The CHECK backs the hard stop: `overage`
-- is 1 only while the month is past its credit by calls that were admitted on terms without one.
CREATE TABLE balances (
    payer_id           TEXT    NOT NULL,
    period             TEXT    NOT NULL,
    grant_account_id   INTEGER NOT NULL REFERENCES accounts (id),
    overage_account_id INTEGER NOT NULL REFERENCES accounts (id),
    overage            INTEGER NOT NULL CHECK (overage IN (0, 1)),
    granted_nano_usd   INTEGER NOT NULL CHECK (granted_nano_usd >= 0),
    posted_nano_usd    INTEGER NOT NULL CHECK (posted_nano_usd >= 0),
    held_nano_usd      INTEGER NOT NULL CHECK (held_nano_usd >= 0),
    PRIMARY KEY (payer_id, period),
    CONSTRAINT hard_stop
        CHECK (overage = 1 OR posted_nano_usd + held_nano_usd <= granted_nano_usd)
) WITHOUT ROWID, STRICT;

-- Why a month's credit is what it is. `reaches_nano_usd` is the month's credit after this grant;
-- it only ever rises, so going down a tier and up again never grants twice.
CREATE TABLE grants (
    payer_id         TEXT    NOT NULL,
    tier             TEXT    NOT NULL,
    period           TEXT    NOT NULL,
    reaches_nano_usd INTEGER NOT NULL,
    amount_nano_usd  INTEGER NOT NULL CHECK (amount_nano_usd > 0),
    at_ms            INTEGER NOT NULL,
    PRIMARY KEY (payer_id, period, reaches_nano_usd)
) WITHOUT ROWID, STRICT;

-- Holds that have not ended. `overage` is 1 where the terms at admission had no hard stop.
CREATE TABLE holds (
    call_id         TEXT    NOT NULL PRIMARY KEY,
    payer_id        TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    user_id         TEXT    NOT NULL,
    key_id          TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd >= 0),
    overage         INTEGER NOT NULL CHECK (overage IN (0, 1)),
    admitted_at_ms  INTEGER NOT NULL,
    expires_at_ms   INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- How each hold ended: once, and for good.
CREATE TABLE settlements (
    call_id          TEXT    NOT NULL PRIMARY KEY,
    payer_id         TEXT    NOT NULL,
    period           TEXT    NOT NULL,
    state            TEXT    NOT NULL CHECK (state IN ('settled', 'void', 'gave_up')),
    held_nano_usd    INTEGER NOT NULL CHECK (held_nano_usd >= 0),
    cost_nano_usd    INTEGER NOT NULL CHECK (cost_nano_usd >= 0),
    overrun_nano_usd INTEGER NOT NULL CHECK (overrun_nano_usd >= 0),
    ended_at_ms      INTEGER NOT NULL,
    CHECK (state = 'settled' OR (cost_nano_usd = 0 AND overrun_nano_usd = 0))
) WITHOUT ROWID, STRICT;

-- One row per call, in the order of time: sums over a range read that range only.
-- `cost_nano_usd` is what the payer was charged.
CREATE TABLE usage (
    at_ms              INTEGER NOT NULL,
    call_id            TEXT    NOT NULL,
    user_id            TEXT    NOT NULL,
    key_id             TEXT    NOT NULL,
    payer_id           TEXT    NOT NULL,
    model              TEXT    NOT NULL,
    provider           TEXT    NOT NULL,
    outcome            TEXT    NOT NULL,
    streamed           INTEGER NOT NULL,
    attempts           INTEGER NOT NULL,
    input_tokens       INTEGER NOT NULL,
    cache_read_tokens  INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    output_tokens      INTEGER NOT NULL,
    reasoning_tokens   INTEGER NOT NULL,
    compute_ns         INTEGER NOT NULL,
    estimated          INTEGER NOT NULL,
    latency_ms         INTEGER NOT NULL,
    first_token_ms     INTEGER,
    cost_nano_usd      INTEGER NOT NULL,
    PRIMARY KEY (at_ms, call_id)
) WITHOUT ROWID, STRICT;

-- A hold is open until it has its settlement, and a call id is used once.
CREATE TRIGGER holds_end AFTER INSERT ON settlements BEGIN
    DELETE FROM holds WHERE call_id = NEW.call_id;
END;
CREATE TRIGGER holds_keep BEFORE DELETE ON holds
WHEN NOT EXISTS (SELECT 1 FROM settlements WHERE call_id = OLD.call_id) BEGIN
    SELECT RAISE(ABORT, 'a hold ends by its settlement only');
END;
CREATE TRIGGER holds_frozen BEFORE UPDATE ON holds BEGIN
    SELECT RAISE(ABORT, 'a hold never changes');
END;
CREATE TRIGGER holds_once BEFORE INSERT ON holds
WHEN EXISTS (SELECT 1 FROM settlements WHERE call_id = NEW.call_id) BEGIN
    SELECT RAISE(ABORT, 'this call id has ended');
END;

-- What is written in these tables stays as it is: corrections are new rows.
CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN
    SELECT RAISE(ABORT, 'the journal only grows');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN
    SELECT RAISE(ABORT, 'the journal only grows');
END;
CREATE TRIGGER settlements_no_update BEFORE UPDATE ON settlements BEGIN
    SELECT RAISE(ABORT, 'a hold ends once');
END;
CREATE TRIGGER settlements_no_delete BEFORE DELETE ON settlements BEGIN
    SELECT RAISE(ABORT, 'a hold ends once');
END;
CREATE TRIGGER grants_no_update BEFORE UPDATE ON grants BEGIN
    SELECT RAISE(ABORT, 'a grant never changes');
END;
CREATE TRIGGER grants_no_delete BEFORE DELETE ON grants BEGIN
    SELECT RAISE(ABORT, 'a grant never changes');
END;
CREATE TRIGGER accounts_no_update BEFORE UPDATE ON accounts BEGIN
    SELECT RAISE(ABORT, 'an account never changes');
END;
CREATE TRIGGER accounts_no_delete BEFORE DELETE ON accounts BEGIN
    SELECT RAISE(ABORT, 'an account never changes');
END;
CREATE TRIGGER usage_no_update BEFORE UPDATE ON usage BEGIN
    SELECT RAISE(ABORT, 'a usage row never changes');
END;

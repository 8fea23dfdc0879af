-- Credit of several kinds, spending limits, and a journal that shows tampering and damage.
-- Amounts are integer nano-USD, times milliseconds since 1970-01-01 UTC, periods UTC months as
-- YYYY-MM. app/ledger/README.md explains every table.

-- Payers' accounts were numbered from 5 on, so the house's later ones have negative numbers.
INSERT INTO accounts (id, owner_id, kind, period) VALUES
    (-1, 'house', 'failover_loss', ''),
    (-2, 'house', 'sold', ''),
    (-3, 'house', 'expired', ''),
    (-4, 'house', 'adjusted', ''),
    (-5, 'house', 'fees', ''),
    (-6, 'house', 'endpoints', '');

-- The journal again, with the month that an entry belongs to and a hash over it and all before it
-- (chain_hash is the program's own function, see app/ledger/chain.py). A call that is paid from two
-- grants has two charges, so the debit account tells them apart.
CREATE TABLE journal (
    seq               INTEGER PRIMARY KEY,
    at_ms             INTEGER NOT NULL,
    period            TEXT    NOT NULL,
    kind              TEXT    NOT NULL,
    subject           TEXT    NOT NULL,
    debit_account_id  INTEGER NOT NULL REFERENCES accounts (id),
    credit_account_id INTEGER NOT NULL REFERENCES accounts (id),
    amount_nano_usd   INTEGER NOT NULL CHECK (amount_nano_usd > 0),
    hash              BLOB    NOT NULL CHECK (length(hash) = 32),
    CHECK (debit_account_id <> credit_account_id),
    UNIQUE (subject, kind, debit_account_id, credit_account_id)
) STRICT;

INSERT INTO journal
SELECT seq, at_ms, period, kind, subject, debit_account_id, credit_account_id, amount_nano_usd,
       chain_hash(seq, at_ms, period, kind, subject, debit_account_id, credit_account_id,
                  amount_nano_usd)
FROM (
    SELECT e.seq, e.at_ms, strftime('%Y-%m', e.at_ms / 1000, 'unixepoch') AS period, e.kind,
           e.subject, e.debit_account_id, e.credit_account_id, e.amount_nano_usd
    FROM entries e ORDER BY e.seq
);
DROP TABLE entries;
ALTER TABLE journal RENAME TO entries;

CREATE TRIGGER entries_no_update BEFORE UPDATE ON entries BEGIN
    SELECT RAISE(ABORT, 'the journal only grows');
END;
CREATE TRIGGER entries_no_delete BEFORE DELETE ON entries BEGIN
    SELECT RAISE(ABORT, 'the journal only grows');
END;

-- Credit given in advance: one row per grant, kept up to date beside the journal. `reference` makes
-- it once: the period of a monthly grant, the payment of a purchase, the campaign of a promotion.
-- Without `expires_at_ms` it does not expire. `closed` is 1 once the unused part has left.
CREATE TABLE credits (
    id               INTEGER PRIMARY KEY,
    payer_id         TEXT    NOT NULL,
    kind             TEXT    NOT NULL
        CHECK (kind IN ('monthly', 'promotional', 'purchased', 'adjustment')),
    reference        TEXT    NOT NULL,
    account_id       INTEGER NOT NULL UNIQUE REFERENCES accounts (id),
    starts_at_ms     INTEGER NOT NULL,
    expires_at_ms    INTEGER,
    note             TEXT    NOT NULL,
    closed           INTEGER NOT NULL CHECK (closed IN (0, 1)),
    granted_nano_usd INTEGER NOT NULL CHECK (granted_nano_usd >= 0),
    spent_nano_usd   INTEGER NOT NULL CHECK (spent_nano_usd >= 0),
    expired_nano_usd INTEGER NOT NULL CHECK (expired_nano_usd >= 0),
    UNIQUE (payer_id, kind, reference),
    CHECK (spent_nano_usd + expired_nano_usd <= granted_nano_usd)
) STRICT;

INSERT INTO credits (payer_id, kind, reference, account_id, starts_at_ms, expires_at_ms, note,
                     closed, granted_nano_usd, spent_nano_usd, expired_nano_usd)
SELECT payer_id, 'monthly', period, grant_account_id,
       unixepoch(period || '-01') * 1000,
       unixepoch(period || '-01', '+1 month') * 1000,
       '', 0, granted_nano_usd,
       coalesce((SELECT sum(amount_nano_usd) FROM entries
                 WHERE debit_account_id = grant_account_id), 0), 0
FROM balances ORDER BY period, payer_id;

DROP TABLE grants;
ALTER TABLE credits RENAME TO grants;
CREATE INDEX grants_expiring ON grants (expires_at_ms) WHERE closed = 0;
CREATE INDEX grants_open ON grants (payer_id) WHERE closed = 0;

CREATE TRIGGER grants_no_delete BEFORE DELETE ON grants BEGIN
    SELECT RAISE(ABORT, 'a grant never goes');
END;

-- What a payer has: `credit` is what is left of all grants, `held` the sum of the open holds. The
-- CHECK backs the hard stop: `overage` is 1 only while more is held than there is credit, by calls
-- that were admitted on terms without one.
CREATE TABLE wallets (
    payer_id        TEXT    NOT NULL PRIMARY KEY,
    overage         INTEGER NOT NULL CHECK (overage IN (0, 1)),
    credit_nano_usd INTEGER NOT NULL CHECK (credit_nano_usd >= 0),
    held_nano_usd   INTEGER NOT NULL CHECK (held_nano_usd >= 0),
    CONSTRAINT hard_stop CHECK (overage = 1 OR held_nano_usd <= credit_nano_usd)
) WITHOUT ROWID, STRICT;

INSERT INTO wallets (payer_id, overage, credit_nano_usd, held_nano_usd)
SELECT payer_id, 1, 0, sum(held_nano_usd) FROM balances GROUP BY payer_id;
UPDATE wallets SET credit_nano_usd = (
    SELECT sum(granted_nano_usd - spent_nano_usd) FROM grants
    WHERE grants.payer_id = wallets.payer_id
);
UPDATE wallets SET overage = 0 WHERE held_nano_usd <= credit_nano_usd;

-- What a payer owes for a month, past the credit and beside calls: overage (pay as you go), fees
-- (a tier's price), endpoints. `reaches_nano_usd` is what fees have been raised to.
CREATE TABLE dues (
    payer_id        TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('overage', 'fee', 'endpoint')),
    account_id      INTEGER NOT NULL UNIQUE REFERENCES accounts (id),
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd >= 0),
    PRIMARY KEY (payer_id, period, kind)
) WITHOUT ROWID, STRICT;

INSERT INTO dues (payer_id, period, kind, account_id, amount_nano_usd)
SELECT payer_id, period, 'overage', overage_account_id,
       coalesce((SELECT sum(amount_nano_usd) FROM entries
                 WHERE debit_account_id = overage_account_id), 0)
FROM balances;
DROP TABLE balances;

-- Caps on a month's spend, for the owner and org admins to set. `scope` is key, user, member (a
-- user within an org: ORG/USER), group or payer.
CREATE TABLE spending_limits (
    scope           TEXT    NOT NULL CHECK (scope IN ('key', 'user', 'member', 'group', 'payer')),
    subject_id      TEXT    NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd >= 0),
    set_by          TEXT    NOT NULL,
    set_at_ms       INTEGER NOT NULL,
    PRIMARY KEY (scope, subject_id)
) WITHOUT ROWID, STRICT;

-- How far a limited month is used up; made when a call first meets the limit, as it was set at
-- `set_at_ms`. `past` is 1 only while the sum is over a limit that was lowered under it.
CREATE TABLE limit_months (
    scope           TEXT    NOT NULL,
    subject_id      TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    set_at_ms       INTEGER NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd >= 0),
    past            INTEGER NOT NULL CHECK (past IN (0, 1)),
    posted_nano_usd INTEGER NOT NULL CHECK (posted_nano_usd >= 0),
    held_nano_usd   INTEGER NOT NULL CHECK (held_nano_usd >= 0),
    PRIMARY KEY (scope, subject_id, period),
    CONSTRAINT spending_limit
        CHECK (past = 1 OR posted_nano_usd + held_nano_usd <= amount_nano_usd)
) WITHOUT ROWID, STRICT;

-- `group_id` is the resource group that the call is billed to, or ''. `byok` calls cost nothing.
ALTER TABLE holds ADD COLUMN group_id TEXT NOT NULL DEFAULT '';
ALTER TABLE holds ADD COLUMN byok INTEGER NOT NULL DEFAULT 0;
-- What failed attempts cost, borne by the house.
ALTER TABLE settlements ADD COLUMN lost_nano_usd INTEGER NOT NULL DEFAULT 0;

-- A provider's own id of an attempt, where the provider is asked for its cost later. Bound once.
CREATE TABLE provider_requests (
    provider    TEXT    NOT NULL,
    upstream_id TEXT    NOT NULL,
    call_id     TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (provider, upstream_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX provider_requests_by_call ON provider_requests (call_id);

-- Calls that ended and whose cost the provider has yet to say: the hold stays as a placeholder.
-- `usage` is the usage row as JSON, to be written with the cost.
CREATE TABLE pending_costs (
    call_id       TEXT    NOT NULL PRIMARY KEY,
    provider      TEXT    NOT NULL,
    upstream_id   TEXT    NOT NULL,
    served_at_ms  INTEGER NOT NULL,
    give_up_at_ms INTEGER NOT NULL,
    usage         BLOB    NOT NULL
) WITHOUT ROWID, STRICT;

-- Answers to requests with an Idempotency-Key. `call_id` is the call that works on it, or has;
-- `status` is NULL while it does.
CREATE TABLE idempotency (
    user_id       TEXT    NOT NULL,
    key           TEXT    NOT NULL,
    request_hash  BLOB    NOT NULL CHECK (length(request_hash) = 32),
    call_id       TEXT    NOT NULL,
    created_at_ms INTEGER NOT NULL,
    status        INTEGER,
    answer        BLOB,
    PRIMARY KEY (user_id, key)
) WITHOUT ROWID, STRICT;
CREATE INDEX idempotency_by_age ON idempotency (created_at_ms);
CREATE INDEX idempotency_in_flight ON idempotency (call_id) WHERE status IS NULL;

-- What operators and admins want to hear of: a limit or a credit is nearly or wholly used up. Each
-- once per month. `delivered_at_ms` is when the webhook took it.
CREATE TABLE events (
    id              INTEGER PRIMARY KEY,
    at_ms           INTEGER NOT NULL,
    kind            TEXT    NOT NULL,
    scope           TEXT    NOT NULL,
    subject_id      TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    amount_nano_usd INTEGER NOT NULL,
    limit_nano_usd  INTEGER NOT NULL,
    attempts        INTEGER NOT NULL DEFAULT 0,
    next_try_at_ms  INTEGER NOT NULL DEFAULT 0,
    delivered_at_ms INTEGER,
    UNIQUE (kind, scope, subject_id, period)
) STRICT;
CREATE INDEX events_to_deliver ON events (next_try_at_ms) WHERE delivered_at_ms IS NULL;

-- An operator's corrections, with a reason and an author. Positive gives credit.
CREATE TABLE adjustments (
    id              TEXT    NOT NULL PRIMARY KEY,
    payer_id        TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd <> 0),
    reason          TEXT    NOT NULL CHECK (length(reason) > 0),
    author          TEXT    NOT NULL CHECK (length(author) > 0),
    at_ms           INTEGER NOT NULL
) WITHOUT ROWID, STRICT;
CREATE TRIGGER adjustments_no_update BEFORE UPDATE ON adjustments BEGIN
    SELECT RAISE(ABORT, 'an adjustment never changes');
END;
CREATE TRIGGER adjustments_no_delete BEFORE DELETE ON adjustments BEGIN
    SELECT RAISE(ABORT, 'an adjustment never changes');
END;

-- Minutes that a replica of a dedicated endpoint ran: each is billed once. `period` is the month in
-- which it is due: its own, or where that month's invoice is closed, the one it was billed in.
CREATE TABLE endpoint_minutes (
    endpoint_id     TEXT    NOT NULL,
    replica         INTEGER NOT NULL,
    minute          INTEGER NOT NULL,
    payer_id        TEXT    NOT NULL,
    period          TEXT    NOT NULL,
    amount_nano_usd INTEGER NOT NULL CHECK (amount_nano_usd >= 0),
    PRIMARY KEY (endpoint_id, replica, minute)
) WITHOUT ROWID, STRICT;

-- The highest time that the ledger has worked with.
CREATE TABLE ledger_clock (
    id      INTEGER PRIMARY KEY CHECK (id = 1),
    high_ms INTEGER NOT NULL
) STRICT;
INSERT INTO ledger_clock SELECT 1, coalesce(max(at_ms), 0) FROM entries;

-- Invoices: closed once, numbered without gaps, never changed. `document` is JSON.
CREATE TABLE invoices (
    number        INTEGER PRIMARY KEY,
    payer_id      TEXT    NOT NULL,
    period        TEXT    NOT NULL,
    closed_at_ms  INTEGER NOT NULL,
    total_nano_usd INTEGER NOT NULL,
    document      BLOB    NOT NULL,
    UNIQUE (payer_id, period)
) STRICT;
CREATE TRIGGER invoices_no_update BEFORE UPDATE ON invoices BEGIN
    SELECT RAISE(ABORT, 'an invoice never changes');
END;
CREATE TRIGGER invoices_no_delete BEFORE DELETE ON invoices BEGIN
    SELECT RAISE(ABORT, 'an invoice never changes');
END;

-- The usage log in fewer bytes, and its sums. Times are milliseconds since 1970-01-01 UTC, hours and
-- days are counted from there too, money is nano-USD.

-- Who used what, said once: a usage row and the sums refer to it by number. `coarse_id` is the
-- series of the same model, provider and outcome over everybody; such a series has '' for the rest
-- and itself as `coarse_id`.
CREATE TABLE series (
    id        INTEGER PRIMARY KEY,
    coarse_id INTEGER NOT NULL,
    user_id   TEXT    NOT NULL,
    key_id    TEXT    NOT NULL,
    payer_id  TEXT    NOT NULL,
    group_id  TEXT    NOT NULL,
    model     TEXT    NOT NULL,
    provider  TEXT    NOT NULL,
    outcome   TEXT    NOT NULL,
    byok      INTEGER NOT NULL CHECK (byok IN (0, 1)),
    UNIQUE (user_id, key_id, payer_id, group_id, model, provider, outcome, byok)
) STRICT;
CREATE INDEX series_by_key ON series (key_id);
CREATE INDEX series_by_payer ON series (payer_id);
CREATE INDEX series_by_group ON series (group_id);

INSERT INTO series (coarse_id, user_id, key_id, payer_id, group_id, model, provider, outcome, byok)
SELECT DISTINCT 0, '', '', '', '', model, provider, outcome, 0 FROM usage;
UPDATE series SET coarse_id = id;
INSERT INTO series (coarse_id, user_id, key_id, payer_id, group_id, model, provider, outcome, byok)
SELECT DISTINCT s.id, u.user_id, u.key_id, u.payer_id, '', u.model, u.provider, u.outcome, 0
FROM usage u JOIN series s
ON s.user_id = '' AND s.model = u.model AND s.provider = u.provider AND s.outcome = u.outcome;

-- One row per call, in the order of time. `paid_from` says which grants paid how much
-- ("GRANT:AMOUNT,…"), "due:AMOUNT" what went past the credit. `provider_cost_nano_usd` is the
-- provider's own bill, where it sent one.
CREATE TABLE calls (
    at_ms                  INTEGER NOT NULL,
    call_id                TEXT    NOT NULL,
    series_id              INTEGER NOT NULL,
    streamed               INTEGER NOT NULL,
    attempts               INTEGER NOT NULL,
    input_tokens           INTEGER NOT NULL,
    cache_read_tokens      INTEGER NOT NULL,
    cache_write_tokens     INTEGER NOT NULL,
    output_tokens          INTEGER NOT NULL,
    reasoning_tokens       INTEGER NOT NULL,
    audio_input_tokens     INTEGER NOT NULL,
    audio_output_tokens    INTEGER NOT NULL,
    images                 INTEGER NOT NULL,
    compute_ns             INTEGER NOT NULL,
    estimated              INTEGER NOT NULL,
    latency_ms             INTEGER NOT NULL,
    first_token_ms         INTEGER,
    cost_nano_usd          INTEGER NOT NULL,
    provider_cost_nano_usd INTEGER,
    paid_from              TEXT    NOT NULL,
    PRIMARY KEY (at_ms, call_id)
) WITHOUT ROWID, STRICT;

INSERT INTO calls
SELECT u.at_ms, u.call_id, s.id, u.streamed, u.attempts, u.input_tokens, u.cache_read_tokens,
       u.cache_write_tokens, u.output_tokens, u.reasoning_tokens, 0, 0, 0, u.compute_ns, u.estimated,
       u.latency_ms, u.first_token_ms, u.cost_nano_usd, NULL, ''
FROM usage u JOIN series s ON s.user_id = u.user_id AND s.key_id = u.key_id
AND s.payer_id = u.payer_id AND s.model = u.model AND s.provider = u.provider
AND s.outcome = u.outcome;
DROP TABLE usage;
ALTER TABLE calls RENAME TO usage;
CREATE TRIGGER usage_no_update BEFORE UPDATE ON usage BEGIN
    SELECT RAISE(ABORT, 'a usage row never changes');
END;

-- Sums per series and hour, and per series and day: written with the rows that they sum up.
CREATE TABLE usage_hours (
    series_id           INTEGER NOT NULL,
    hour                INTEGER NOT NULL,
    calls               INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cache_read_tokens   INTEGER NOT NULL,
    cache_write_tokens  INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    audio_input_tokens  INTEGER NOT NULL,
    audio_output_tokens INTEGER NOT NULL,
    images              INTEGER NOT NULL,
    compute_ns          INTEGER NOT NULL,
    cost_nano_usd       INTEGER NOT NULL,
    PRIMARY KEY (series_id, hour)
) WITHOUT ROWID, STRICT;

CREATE TABLE usage_days (
    series_id           INTEGER NOT NULL,
    day                 INTEGER NOT NULL,
    calls               INTEGER NOT NULL,
    input_tokens        INTEGER NOT NULL,
    cache_read_tokens   INTEGER NOT NULL,
    cache_write_tokens  INTEGER NOT NULL,
    output_tokens       INTEGER NOT NULL,
    reasoning_tokens    INTEGER NOT NULL,
    audio_input_tokens  INTEGER NOT NULL,
    audio_output_tokens INTEGER NOT NULL,
    images              INTEGER NOT NULL,
    compute_ns          INTEGER NOT NULL,
    cost_nano_usd       INTEGER NOT NULL,
    PRIMARY KEY (series_id, day)
) WITHOUT ROWID, STRICT;

INSERT INTO usage_hours
SELECT series_id, at_ms / 3600000, count(*), sum(input_tokens), sum(cache_read_tokens),
       sum(cache_write_tokens), sum(output_tokens), sum(reasoning_tokens), 0, 0, 0, sum(compute_ns),
       sum(cost_nano_usd)
FROM (
    SELECT * FROM usage
    UNION ALL
    SELECT at_ms, call_id, coarse_id, streamed, attempts, input_tokens, cache_read_tokens,
           cache_write_tokens, output_tokens, reasoning_tokens, 0, 0, 0, compute_ns, estimated,
           latency_ms, first_token_ms, cost_nano_usd, NULL, ''
    FROM usage JOIN series ON id = series_id
) GROUP BY 1, 2;
INSERT INTO usage_days
SELECT series_id, hour / 24, sum(calls), sum(input_tokens), sum(cache_read_tokens),
       sum(cache_write_tokens), sum(output_tokens), sum(reasoning_tokens), 0, 0, 0, sum(compute_ns),
       sum(cost_nano_usd)
FROM usage_hours GROUP BY 1, 2;

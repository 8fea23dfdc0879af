-- Answers about usage that stay quick over years, and a raw log that does not grow without bound.

-- A party is a series too: one user, key, payer and group over all models, with '' for the rest and
-- 0 as `coarse_id`. Every series of calls has its party in `party_id`.
ALTER TABLE series ADD COLUMN party_id INTEGER NOT NULL DEFAULT 0;
INSERT INTO series (coarse_id, user_id, key_id, payer_id, group_id, model, provider, outcome, byok)
SELECT DISTINCT 0, user_id, key_id, payer_id, group_id, '', '', '', 0
FROM series WHERE coarse_id <> id;
UPDATE series SET party_id = (
    SELECT p.id FROM series p
    WHERE p.user_id = series.user_id AND p.key_id = series.key_id
    AND p.payer_id = series.payer_id AND p.group_id = series.group_id
    AND p.model = '' AND p.provider = '' AND p.outcome = '' AND p.byok = 0
) WHERE coarse_id <> id AND coarse_id <> 0;
CREATE INDEX parties_by_user ON series (user_id) WHERE coarse_id = 0;
CREATE INDEX parties_by_key ON series (key_id) WHERE coarse_id = 0;
CREATE INDEX parties_by_payer ON series (payer_id) WHERE coarse_id = 0;
CREATE INDEX parties_by_group ON series (group_id) WHERE coarse_id = 0;
CREATE INDEX series_coarse ON series (id) WHERE coarse_id = id;

-- Hours are asked for a few at a time and over everybody: they lie in the order of time.
CREATE TABLE hours (
    hour                INTEGER NOT NULL,
    series_id           INTEGER NOT NULL,
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
    PRIMARY KEY (hour, series_id)
) WITHOUT ROWID, STRICT;
INSERT INTO hours
SELECT hour, series_id, calls, input_tokens, cache_read_tokens, cache_write_tokens, output_tokens,
       reasoning_tokens, audio_input_tokens, audio_output_tokens, images, compute_ns, cost_nano_usd
FROM usage_hours;
DROP TABLE usage_hours;
ALTER TABLE hours RENAME TO usage_hours;

-- What a party has used since its first call, up to the end of each day on which it called: any
-- range of days is the difference of two rows.
CREATE TABLE usage_parties (
    party_id            INTEGER NOT NULL,
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
    PRIMARY KEY (party_id, day)
) WITHOUT ROWID, STRICT;
INSERT INTO usage_parties
SELECT party_id, day, sum(calls) OVER past, sum(input_tokens) OVER past,
       sum(cache_read_tokens) OVER past, sum(cache_write_tokens) OVER past,
       sum(output_tokens) OVER past, sum(reasoning_tokens) OVER past,
       sum(audio_input_tokens) OVER past, sum(audio_output_tokens) OVER past,
       sum(images) OVER past, sum(compute_ns) OVER past, sum(cost_nano_usd) OVER past
FROM (
    SELECT s.party_id, d.day, sum(calls) AS calls, sum(input_tokens) AS input_tokens,
           sum(cache_read_tokens) AS cache_read_tokens,
           sum(cache_write_tokens) AS cache_write_tokens, sum(output_tokens) AS output_tokens,
           sum(reasoning_tokens) AS reasoning_tokens,
           sum(audio_input_tokens) AS audio_input_tokens,
           sum(audio_output_tokens) AS audio_output_tokens, sum(images) AS images,
           sum(compute_ns) AS compute_ns, sum(cost_nano_usd) AS cost_nano_usd
    FROM usage_days d JOIN series s ON s.id = d.series_id
    WHERE s.party_id <> 0 GROUP BY 1, 2
)
WINDOW past AS (PARTITION BY party_id ORDER BY day);

-- Sums per series and month (counted from 1970-01), made of the days once a month is over and no
-- hold of it is open. A month counts from the moment that it stands in `usage_months_closed`.
CREATE TABLE usage_months (
    month               INTEGER NOT NULL,
    series_id           INTEGER NOT NULL,
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
    PRIMARY KEY (series_id, month)
) WITHOUT ROWID, STRICT;
CREATE TABLE usage_months_closed (
    month        INTEGER PRIMARY KEY,
    closed_at_ms INTEGER NOT NULL
) STRICT;

-- Days whose rows were moved out of `usage`, each into a file of its own. `emptied_at_ms` is when
-- the last of them had left the table, `dropped_at_ms` when the file was given up.
CREATE TABLE usage_segments (
    day           INTEGER PRIMARY KEY,
    rows          INTEGER NOT NULL CHECK (rows > 0),
    bytes         INTEGER NOT NULL CHECK (bytes > 0),
    sha256        TEXT    NOT NULL CHECK (length(sha256) = 64),
    sealed_at_ms  INTEGER NOT NULL,
    emptied_at_ms INTEGER,
    dropped_at_ms INTEGER
) STRICT;

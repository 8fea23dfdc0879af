-- What routing remembers: models that providers named, what probes found and cost, confinements and
-- preferred providers. Amounts are integer nano-USD, times milliseconds since 1970-01-01 UTC.

INSERT INTO accounts (id, owner_id, kind, period) VALUES (-7, 'house', 'probes', '');

-- Probes that were made at the house's expense: one row each, its amount that of its entry.
CREATE TABLE probe_costs (
    probe_id        TEXT    NOT NULL PRIMARY KEY,
    at_ms           INTEGER NOT NULL,
    provider        TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    calls           INTEGER NOT NULL CHECK (calls >= 0),
    input_tokens    INTEGER NOT NULL CHECK (input_tokens >= 0),
    output_tokens   INTEGER NOT NULL CHECK (output_tokens >= 0),
    cost_nano_usd   INTEGER NOT NULL CHECK (cost_nano_usd > 0)
) WITHOUT ROWID, STRICT;
CREATE TRIGGER probe_costs_no_update BEFORE UPDATE ON probe_costs BEGIN
    SELECT RAISE(ABORT, 'what a probe cost never changes');
END;
CREATE TRIGGER probe_costs_no_delete BEFORE DELETE ON probe_costs BEGIN
    SELECT RAISE(ABORT, 'what a probe cost never changes');
END;

-- The last probe of each offer, as JSON.
CREATE TABLE probe_results (
    provider      TEXT    NOT NULL,
    model         TEXT    NOT NULL,
    checked_at_ms INTEGER NOT NULL,
    result        BLOB    NOT NULL,
    PRIMARY KEY (provider, model)
) WITHOUT ROWID, STRICT;

-- What a provider last said that it serves, as JSON. `origin` is the plugin and the address that
-- were asked: a list of another one is of no use.
CREATE TABLE discovered_models (
    provider    TEXT    NOT NULL PRIMARY KEY,
    origin      TEXT    NOT NULL,
    found_at_ms INTEGER NOT NULL,
    models      BLOB    NOT NULL
) WITHOUT ROWID, STRICT;

-- Keys, users and orgs whose calls may only go to offers with one of these labels (separated by a
-- space). `by_owner` is 1 where an owner of the appliance said so: others can only tighten it.
CREATE TABLE confinements (
    kind       TEXT    NOT NULL CHECK (kind IN ('key', 'user', 'org')),
    subject_id TEXT    NOT NULL,
    labels     TEXT    NOT NULL CHECK (length(labels) > 0),
    by_owner   INTEGER NOT NULL CHECK (by_owner IN (0, 1)),
    set_by     TEXT    NOT NULL,
    set_at_ms  INTEGER NOT NULL,
    PRIMARY KEY (kind, subject_id)
) WITHOUT ROWID, STRICT;

-- A user's own order of providers, for `:preferred`: names separated by a space.
CREATE TABLE preferred_providers (
    user_id   TEXT    NOT NULL PRIMARY KEY REFERENCES users (id),
    providers TEXT    NOT NULL CHECK (length(providers) > 0),
    set_at_ms INTEGER NOT NULL
) WITHOUT ROWID, STRICT;

-- Organisations: who belongs to them, and whose money pays. Times are milliseconds since
-- 1970-01-01 UTC.

CREATE TABLE orgs (
    id            TEXT    PRIMARY KEY,
    name          TEXT    NOT NULL COLLATE NOCASE UNIQUE,
    tier          TEXT    NOT NULL,
    -- 1: pays for its members' calls that name no payer.
    default_payer INTEGER NOT NULL DEFAULT 0 CHECK (default_payer IN (0, 1)),
    created_at_ms INTEGER NOT NULL,
    -- How many members, kept by the triggers below: a call's cost must not grow with its org.
    seats         INTEGER NOT NULL DEFAULT 0 CHECK (seats >= 0)
) STRICT;

-- A seat is a member's paid place: one row, one seat.
CREATE TABLE members (
    org_id      TEXT    NOT NULL REFERENCES orgs (id),
    user_id     TEXT    NOT NULL REFERENCES users (id),
    role        TEXT    NOT NULL CHECK (role IN ('admin', 'member')),
    added_at_ms INTEGER NOT NULL,
    PRIMARY KEY (org_id, user_id)
) WITHOUT ROWID, STRICT;
CREATE INDEX members_by_user ON members (user_id, added_at_ms);
CREATE TRIGGER members_seat_added AFTER INSERT ON members BEGIN
    UPDATE orgs SET seats = seats + 1 WHERE id = NEW.org_id;
END;
CREATE TRIGGER members_seat_removed AFTER DELETE ON members BEGIN
    UPDATE orgs SET seats = seats - 1 WHERE id = OLD.org_id;
END;

-- A part of an org that calls can be billed to, by members who belong to it (admins always may).
CREATE TABLE resource_groups (
    id            TEXT    PRIMARY KEY,
    org_id        TEXT    NOT NULL REFERENCES orgs (id),
    name          TEXT    NOT NULL COLLATE NOCASE,
    created_at_ms INTEGER NOT NULL,
    UNIQUE (org_id, name)
) STRICT;
CREATE TABLE group_members (
    group_id TEXT NOT NULL REFERENCES resource_groups (id),
    user_id  TEXT NOT NULL REFERENCES users (id),
    PRIMARY KEY (group_id, user_id)
) WITHOUT ROWID, STRICT;

-- Providers and models that an org does not pay for.
CREATE TABLE switched_off (
    org_id    TEXT    NOT NULL REFERENCES orgs (id),
    kind      TEXT    NOT NULL CHECK (kind IN ('provider', 'model')),
    name      TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    set_by    TEXT    NOT NULL,
    set_at_ms INTEGER NOT NULL,
    PRIMARY KEY (org_id, kind, name)
) WITHOUT ROWID, STRICT;

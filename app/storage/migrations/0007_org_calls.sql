-- Whose call it was, where an org paid: the call's own user may ask what it cost, and a settlement
-- only knows who paid. A call that its user paid for needs no row.
CREATE TABLE org_calls (
    call_id TEXT NOT NULL PRIMARY KEY,
    user_id TEXT NOT NULL
) WITHOUT ROWID, STRICT;

CREATE TRIGGER holds_org_call AFTER INSERT ON holds WHEN NEW.payer_id <> NEW.user_id BEGIN
    INSERT INTO org_calls (call_id, user_id) VALUES (NEW.call_id, NEW.user_id);
END;

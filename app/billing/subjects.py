"""What a spending limit or an event is about, by name: a key, user, member, group or payer.

``SUBJECT_JOINS`` goes behind the table it names ``t``, which has ``scope`` and ``subject_id``;
``SUBJECT_COLUMNS`` are then the subject's name, and the id and name of who answers for it: the org
of a member or group, the user of a key.
"""

SUBJECT_COLUMNS = """
       coalesce(CASE t.scope
           WHEN 'key' THEN k.name || ' (tp_' || k.prefix || '…)'
           WHEN 'member' THEN o.name || '/' || u.name
           WHEN 'group' THEN o.name || '/' || g.name
           ELSE coalesce(o.name, u.name)
       END, t.subject_id),
       coalesce(o.id, u.id, ''), coalesce(o.name, u.name, '')
"""

SUBJECT_JOINS = """
LEFT JOIN api_keys k ON t.scope = 'key' AND k.id = t.subject_id
LEFT JOIN resource_groups g ON t.scope = 'group' AND g.id = t.subject_id
LEFT JOIN users u ON u.id = CASE t.scope
    WHEN 'key' THEN k.user_id
    WHEN 'member' THEN substr(t.subject_id, instr(t.subject_id, '/') + 1)
    ELSE t.subject_id END
LEFT JOIN orgs o ON o.id = CASE t.scope
    WHEN 'group' THEN g.org_id
    WHEN 'member' THEN substr(t.subject_id, 1, instr(t.subject_id, '/') - 1)
    ELSE t.subject_id END
"""

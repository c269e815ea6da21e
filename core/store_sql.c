#include "core/store_backend.h"

/* A site as the lists show it: its latest incarnation, the three positions, what was lost. */
#define SITE_FACTS                                                                                                                 \
    "SELECT s.id, s.first_ms, s.contact_ms, s.node, s.no, i.number, i.epoch, p0.seq, p0.known, p1.seq, p1.known, p2.seq, "         \
    "p2.known,"                                                                                                                    \
    " (SELECT count(*) FROM gap g WHERE g.inc IN (SELECT no FROM incarnation WHERE site = s.no)),"                                 \
    " (SELECT CAST(coalesce(sum(g.to_seq - g.from_seq + 1), 0) AS bigint) FROM gap g"                                              \
    " WHERE g.inc IN (SELECT no FROM incarnation WHERE site = s.no)),"                                                             \
    " (SELECT count(*) FROM attestation t WHERE t.site = s.id),"                                                                   \
    " (SELECT count(*) FROM attestation t WHERE t.site = s.id AND t.error <> 0),"                                                  \
    " (SELECT count(*) FROM attestation t WHERE t.site = s.id AND t.error = 0 AND t.until_ms = 0),"                                \
    " (SELECT coalesce(min(t.until_ms), 0) FROM attestation t WHERE t.site = s.id AND t.error = 0 AND t.until_ms > 0)"             \
    " FROM site s" STORE_LATEST_SQL STORE_POSITIONS_SQL

/* Does site s get the newest version of aim a already? */
#define REACHED                                                                                                                    \
    "(a.state = 0 OR (a.state = 1 AND EXISTS (SELECT 1 FROM stage g JOIN label l ON l.label = g.label WHERE l.site = s.no AND"     \
    " g.kind = a.kind AND g.name = a.name AND g.no <= a.stage)))"

/* The latest issue of an object that a site holds and that can be believed: below ?1. */
#define HELD_MOST                                                                                                                  \
    "SELECT coalesce(max(h.issue), 0) FROM holding h WHERE h.kind = object.kind AND h.name = object.name AND h.issue < ?1"

const char *const store_sql[STORE_STATEMENTS] = {
    [STORE_SITE_FIND] = "SELECT no FROM site WHERE id = ?1",
    [STORE_SITE_ADD] = "INSERT INTO site(id, first_ms, contact_ms) VALUES(?1, ?2, ?2) ON CONFLICT DO NOTHING",
    [STORE_SITE_TOUCH] = "UPDATE site SET contact_ms = ?2, node = coalesce(?3, node) WHERE no = ?1",
    [STORE_SEALED_ADD] = "INSERT INTO sealed VALUES(?1, ?2) ON CONFLICT DO NOTHING",
    [STORE_SEALED_IS] = "SELECT since_ms FROM sealed WHERE site = ?1",
    [STORE_SITE_ASKED] = "UPDATE site SET asked_ms = ?2 WHERE no = ?1",
    [STORE_NODE_TOUCH] = "INSERT INTO node VALUES(?1, ?3, ?2, ?2) ON CONFLICT(site, name) DO UPDATE SET contact_ms = ?2",
    [STORE_INC_FIND] = "SELECT no, epoch FROM incarnation WHERE site = ?1 AND number = ?2",
    [STORE_INC_ADD] = "INSERT INTO incarnation(site, number, epoch, first_ms) VALUES(?1, ?2, ?3, ?4)",
    [STORE_INC_EPOCH] = "UPDATE incarnation SET epoch = ?2 WHERE no = ?1",
    [STORE_INC_LAST] = "SELECT max(no) FROM incarnation WHERE site = ?1",
    [STORE_STAND] = "SELECT s.no, s.contact_ms, s.asked_ms, i.no, i.epoch, p.seq,"
                    " (SELECT count(*) FROM ahead a WHERE a.inc = i.no AND a.channel = ?3)"
                    " FROM site s LEFT JOIN incarnation i ON i.site = s.no AND i.number = ?2"
                    " LEFT JOIN position p ON p.inc = i.no AND p.channel = ?3 WHERE s.id = ?1",
    [STORE_POSITION_GET] = "SELECT seq FROM position WHERE inc = ?1 AND channel = ?2",
    [STORE_POSITION_SET] = "INSERT INTO position VALUES(?1, ?2, ?3, ?3) ON CONFLICT(inc, channel) DO UPDATE SET seq = ?3,"
                           " known = CASE WHEN position.known > ?3 THEN position.known ELSE ?3 END",
    [STORE_POSITION_KNOWN] = "INSERT INTO position VALUES(?1, ?2, 0, ?3) ON CONFLICT(inc, channel) DO UPDATE SET"
                             " known = CASE WHEN position.known > ?3 THEN position.known ELSE ?3 END",
    [STORE_GAP_ADD] =
        "INSERT INTO gap(inc, channel, from_seq, to_seq, reason, received_ms, bytes) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        " ON CONFLICT DO NOTHING",
    [STORE_AHEAD_ADD] = "INSERT INTO ahead VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING",
    [STORE_AHEAD_SPANS] = "SELECT from_seq, to_seq, received_ms, size FROM ahead WHERE inc = ?1 AND channel = ?2 ORDER BY from_seq",
    [STORE_AHEAD_GET] = "SELECT content FROM ahead WHERE inc = ?1 AND channel = ?2 AND from_seq <= ?3 ORDER BY from_seq",
    [STORE_AHEAD_DROP] = "DELETE FROM ahead WHERE inc = ?1 AND channel = ?2 AND from_seq <= ?3",
    [STORE_AHEAD_CLEAR] = "DELETE FROM ahead WHERE inc = ?1",
    [STORE_STANDS] = STORE_STANDS_SQL,
    [STORE_SITES] = SITE_FACTS " WHERE s.id > ?1 ORDER BY s.id LIMIT ?2",
    [STORE_SITE] = SITE_FACTS " WHERE s.id = ?1",
    [STORE_NODES] = "SELECT name, first_ms, contact_ms FROM node WHERE site = ?1 ORDER BY name",
    [STORE_INCS] = "SELECT no FROM incarnation WHERE site = ?1 AND no >= ?2 ORDER BY no",
    [STORE_EVENTS] = "SELECT inc, channel, seq, idx, time_ms, received_ms, record FROM event WHERE inc = ?1 AND channel = ?2"
                     " AND seq > ?3 ORDER BY seq LIMIT ?4",
    [STORE_GAPS] = "SELECT inc, channel, from_seq, to_seq, reason, received_ms, bytes FROM gap WHERE inc = ?1 AND channel = ?2"
                   " AND from_seq > ?3 ORDER BY from_seq LIMIT ?4",
    [STORE_OBJECT] = "SELECT version, issue, created_ms, cut FROM object WHERE kind = ?1 AND name = ?2 AND (version = ?3 OR ?3 = 0)"
                     " ORDER BY version DESC LIMIT 1",
    [STORE_OBJECT_ADD] = "INSERT INTO object(kind, name, version, issue, created_ms, cut) VALUES(?1, ?2, ?3, ?4, ?5, ?6)",
    [STORE_ISSUE_LAST] = "SELECT coalesce(max(issue), 0) FROM object",
    [STORE_ISSUE_RAISE] = "UPDATE object SET issue = ?3 + 1 WHERE kind = ?1 AND name = ?2 AND issue < ?3 AND version IN"
                          " (SELECT CASE WHEN a.state = 2 THEN a.former ELSE a.target END FROM aim a"
                          " WHERE a.kind = ?1 AND a.name = ?2)"
                          " AND NOT EXISTS (SELECT 1 FROM object o WHERE o.kind = ?1 AND o.name = ?2 AND o.issue = ?3)",
    [STORE_AIM_SET] = "INSERT INTO aim(kind, name, target, former, stage, state, since_ms) VALUES(?1, ?2, ?3, 0, 0, ?4, ?5)"
                      " ON CONFLICT(kind, name) DO UPDATE SET former = CASE WHEN aim.state = 0 THEN aim.target ELSE aim.former END,"
                      " target = ?3, stage = 0, state = ?4, since_ms = ?5",
    [STORE_STAGES_CLEAR] = "DELETE FROM stage WHERE kind = ?1 AND name = ?2",
    [STORE_STAGE_ADD] = "INSERT INTO stage(kind, name, no, label, soak_s) VALUES(?1, ?2, ?3, ?4, ?5)",
    [STORE_STAGES] = "SELECT label, soak_s FROM stage WHERE kind = ?1 AND name = ?2 ORDER BY no",
    [STORE_AIM] = "SELECT target, former, stage, state, since_ms FROM aim WHERE kind = ?1 AND name = ?2",
    [STORE_AIMS_RUNNING] = "SELECT kind, name FROM aim WHERE state = 1 AND (kind > ?1 OR (kind = ?1 AND name > ?2))"
                           " ORDER BY kind, name LIMIT 1",
    [STORE_AIM_STEP] =
        "UPDATE aim SET stage = ?4, state = ?5, since_ms = ?6 WHERE kind = ?1 AND name = ?2 AND stage = ?3 AND state = 1",
    [STORE_AIM_TALLY] =
        "SELECT count(*), CAST(coalesce(sum(CASE WHEN h.version = a.target AND (h.health = 1 OR (h.health = 0 AND a.kind <> 4))"
        " AND h.since_ms <= ?3 THEN 1 ELSE 0 END), 0)"
        " AS bigint), CAST(coalesce(sum(CASE WHEN h.version = a.target AND h.health = 2 THEN 1 ELSE 0 END), 0) AS bigint)"
        " FROM aim a CROSS JOIN site s JOIN supplied u ON u.site = s.no"
        " LEFT JOIN holding h ON h.site = s.no AND h.kind = a.kind AND h.name = a.name"
        " WHERE a.kind = ?1 AND a.name = ?2 AND " REACHED,
    [STORE_REISSUE] = "UPDATE object SET issue = ?4 WHERE kind = ?1 AND name = ?2 AND version = ?3",
    [STORE_LABELS_CLEAR] = "DELETE FROM label WHERE site = ?1",
    [STORE_LABEL_ADD] = "INSERT INTO label(site, label) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
    [STORE_LABELS] = "SELECT l.label FROM label l JOIN site s ON s.no = l.site WHERE s.id = ?1 ORDER BY l.label",
    [STORE_CHUNK] = "SELECT content FROM chunk WHERE hash = ?1",
    [STORE_CHUNK_ADD] = "INSERT INTO chunk(hash, content) VALUES(?1, ?2) ON CONFLICT DO NOTHING",
    [STORE_SESSION] = "SELECT s.no, i.epoch FROM site s JOIN incarnation i ON i.site = s.no AND i.number = ?2 WHERE s.id = ?1",
    [STORE_SUPPLIED_SET] = "INSERT INTO supplied(site, said_ms) VALUES(?1, ?2) ON CONFLICT(site) DO UPDATE SET said_ms = ?2",
    [STORE_HOLDING_SET] =
        "INSERT INTO holding(site, kind, name, version, issue, health, since_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)"
        " ON CONFLICT(site, kind, name) DO UPDATE SET since_ms = CASE WHEN holding.issue = ?5 THEN holding.since_ms ELSE ?7 END,"
        " version = ?4, issue = ?5, health = ?6",
    [STORE_OFFERS] = "SELECT o.kind, o.name, o.version, o.issue, o.cut FROM site s CROSS JOIN aim a"
                     " JOIN object o ON o.kind = a.kind AND o.name = a.name AND o.version ="
                     " CASE WHEN " REACHED " THEN a.target ELSE a.former END"
                     " LEFT JOIN holding h ON h.site = s.no AND h.kind = a.kind AND h.name = a.name"
                     " WHERE s.id = ?1 AND o.issue > coalesce(h.issue, 0) ORDER BY o.kind, o.issue",
    [STORE_SUPPLIED] = "SELECT s.id, i.number, i.epoch FROM site s JOIN supplied u ON u.site = s.no" STORE_LATEST_SQL
                       " WHERE s.id > ?1 ORDER BY s.id LIMIT ?2",
    [STORE_OBJECTS] = "SELECT a.name, a.target, o.issue, o.created_ms, (SELECT count(*) FROM holding h WHERE h.kind = a.kind AND"
                      " h.name = a.name AND h.version = a.target) FROM aim a JOIN object o ON o.kind = a.kind AND o.name = a.name"
                      " AND o.version = a.target WHERE a.kind = ?1 ORDER BY a.name",
    [STORE_SITE_OBJECTS] = "SELECT h.kind, h.name, h.version, h.issue, h.health, h.since_ms FROM holding h"
                           " JOIN site s ON s.no = h.site WHERE s.id = ?1 ORDER BY h.kind, h.name",
    [STORE_TOKEN_ADD] = "INSERT INTO token(hash, site, nodes, used, created_ms, expires_ms, node) VALUES(?1, ?2, ?3, 0, ?4, ?5, ?6)"
                        " ON CONFLICT DO NOTHING",
    [STORE_TOKENS] = "SELECT hash, site, nodes, used, created_ms, expires_ms FROM token WHERE expires_ms > ?1 ORDER BY created_ms"
                     " LIMIT ?2",
    [STORE_TOKEN] = "SELECT t.nodes, t.used, t.expires_ms, CAST(CASE WHEN t.site = ?2 AND (t.node IS NULL OR t.node = ?3) THEN 1 "
                    "ELSE 0 END AS bigint), (SELECT "
                    "count(*) FROM certificate c"
                    " WHERE c.token = ?1 AND c.site = ?2 AND c.node = ?3 AND c.key <> ?4 AND c.revoked_ms = 0),"
                    " (SELECT count(*) FROM restored r WHERE (length(r.site) = 0 OR r.site = t.site) AND t.created_ms < r.found_ms)"
                    " FROM token t WHERE t.hash = ?1",
    [STORE_TOKEN_DROP] = "DELETE FROM token WHERE site = ?1 AND node = ?2 AND used = 0",
    [STORE_TOKEN_USE] = "UPDATE token SET used = used + 1 WHERE hash = ?1",
    [STORE_TOKEN_END] = "UPDATE token SET expires_ms = ?2 WHERE hash = ?1",
    [STORE_CERTIFICATE_OF_KEY] = "SELECT site, node, token, not_after_ms, revoked_ms, pem FROM certificate WHERE key = ?1"
                                 " ORDER BY issued_ms DESC, not_after_ms DESC LIMIT 1",
    [STORE_CERTIFICATE_ADD] = "INSERT INTO certificate(serial, key, site, node, token, issued_ms, not_after_ms, pem, revoked_ms)"
                              " VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
    [STORE_CERTIFICATES_REPLACED] =
        "UPDATE certificate SET revoked_ms = ?4 WHERE site = ?1 AND node = ?2 AND key <> ?3 AND revoked_ms = 0",
    [STORE_CERTIFICATES_COUNT] =
        "SELECT CAST(coalesce(sum(CASE WHEN revoked_ms = 0 AND not_after_ms > ?3 THEN 1 ELSE 0 END), 0) AS bigint), count(*)"
        " FROM certificate WHERE site = ?1 AND (CAST(?4 AS bigint) = 1 OR node = ?2)",
    [STORE_CERTIFICATES_REVOKE] =
        "UPDATE certificate SET revoked_ms = ?3 WHERE site = ?1 AND (CAST(?4 AS bigint) = 1 OR node = ?2) AND revoked_ms = 0",
    [STORE_CERTIFICATES] =
        "SELECT c.site, c.node, c.serial, c.issued_ms, c.not_after_ms, c.revoked_ms FROM certificate c"
        " WHERE (CAST(?3 AS bigint) = 1 OR c.site = ?1) AND NOT EXISTS (SELECT 1 FROM certificate l WHERE l.site = c.site"
        " AND l.node = c.node AND (l.issued_ms > c.issued_ms OR (l.issued_ms = c.issued_ms AND l.serial > c.serial)))"
        " ORDER BY c.site, c.node LIMIT ?2",
    [STORE_REVOKED] = "SELECT serial, revoked_ms FROM certificate WHERE revoked_ms > 0 AND not_after_ms > ?1"
                      " ORDER BY revoked_ms DESC, serial LIMIT ?2",
    [STORE_OFFLOAD_ADD] = "INSERT INTO offload(inc, task, token, state, received_ms, seen_ms, errand, outcome, status, size)"
                          " VALUES(?1, ?2, ?3, 0, ?4, 0, ?5, 0, 0, 0) ON CONFLICT DO NOTHING",
    [STORE_OFFLOAD_SETTLE] = "UPDATE offload SET state = 2, seen_ms = 0 WHERE inc = ?1 AND task = ?2 AND token = ?3",
    [STORE_OFFLOADS_DUE] = "SELECT s.id, i.number, i.epoch, o.inc, o.task, o.token, o.state, o.outcome, o.status, o.hash, o.size,"
                           " o.output, o.errand FROM offload o JOIN incarnation i ON i.no = o.inc JOIN site s ON s.no = i.site"
                           " WHERE o.seen_ms <= ?1 OR o.seen_ms > ?3 ORDER BY o.seen_ms LIMIT ?2",
    [STORE_OFFLOAD_SEEN] = "UPDATE offload SET seen_ms = ?4 WHERE inc = ?1 AND task = ?2 AND token = ?3",
    [STORE_OFFLOAD_ACCEPT] = "UPDATE offload SET state = 3 WHERE inc = ?1 AND task = ?2 AND token = ?3 AND state = 0",
    [STORE_OFFLOAD_END] = "UPDATE offload SET state = 1, outcome = ?4, status = ?5, hash = ?6, size = ?7, output = ?8"
                          " WHERE inc = ?1 AND task = ?2 AND token = ?3 AND state IN (0, 3)",
    [STORE_OFFLOAD_DROP] = "DELETE FROM offload WHERE inc = ?1 AND task = ?2 AND token = ?3 AND state = 2",
    [STORE_REVOKED_IS] =
        "SELECT revoked_ms FROM certificate WHERE site = ?1 AND node = ?2 ORDER BY issued_ms DESC, revoked_ms LIMIT 1",
    [STORE_TPM] = "SELECT t.site, t.node, (SELECT count(*) FROM restored r WHERE r.accepted_ms = 0 AND (length(r.site) = 0 OR"
                  " r.site = t.site) AND t.added_ms < r.found_ms) FROM tpm t WHERE t.ek = ?1",
    [STORE_TPM_OF] = "SELECT ek FROM tpm WHERE site = ?1 AND node = ?2",
    [STORE_TPM_CLEAR] = "DELETE FROM tpm WHERE site = ?1 AND node = ?2",
    [STORE_TPM_ADD] = "INSERT INTO tpm(ek, site, node, added_ms) VALUES(?1, ?2, ?3, ?4)"
                      " ON CONFLICT(ek) DO UPDATE SET site = ?2, node = ?3, added_ms = ?4",
    [STORE_TPM_REMOVE] = "DELETE FROM tpm WHERE ek = ?1",
    [STORE_TPMS] = "SELECT ek, site, node, added_ms FROM tpm ORDER BY site, node LIMIT ?1",
    [STORE_ATTEST] = "SELECT revision, kept FROM attestation WHERE site = ?1 AND node = ?2",
    [STORE_ATTEST_PUT] = "INSERT INTO attestation(site, node, revision, kept, error, until_ms) VALUES(?1, ?2, ?3, ?4, ?5, ?6)"
                         " ON CONFLICT(site, node) DO UPDATE SET revision = ?3, kept = ?4, error = ?5, until_ms = ?6 WHERE "
                         "attestation.revision = ?7",
    [STORE_ATTEST_FORGET] = "DELETE FROM attestation WHERE site = ?1 AND node = ?2",
    [STORE_ATTEST_COUNT] = "SELECT count(*) FROM attestation WHERE site = ?1",
    [STORE_ATTEST_POLICY] = "SELECT CASE WHEN " REACHED " OR (a.state = 1 AND h.version = a.target) THEN a.target ELSE a.former END"
                            " FROM site s CROSS JOIN aim a LEFT JOIN holding h ON h.site = s.no AND h.kind = a.kind AND"
                            " h.name = a.name WHERE s.id = ?1 AND a.kind = ?2 AND a.name = ?3",
    [STORE_ATTESTS] = "SELECT site, node, kept FROM attestation WHERE (CAST(?3 AS bigint) = 1 OR site = ?1)"
                      " AND (CAST(?4 AS bigint) = 1 OR node = ?2) AND (site > ?5 OR (site = ?5 AND node > ?6))"
                      " ORDER BY site, node LIMIT ?7",
    [STORE_HOLDING_FAILED] = "UPDATE holding SET health = 2 WHERE site = (SELECT no FROM site WHERE id = ?1) AND kind = ?2"
                             " AND name = ?3 AND issue = ?4 AND EXISTS (SELECT 1 FROM aim a WHERE a.kind = ?2 AND a.name = ?3"
                             " AND a.state = 1)",
    [STORE_MARK] = "SELECT no, store FROM mark WHERE id = 1",
    [STORE_MARK_ADD] = "INSERT INTO mark(id, no, store) VALUES(1, 0, ?1) ON CONFLICT DO NOTHING",
    [STORE_MARK_RAISE] = "UPDATE mark SET no = no + 1 WHERE id = 1",
    [STORE_MARK_SET] = "UPDATE mark SET no = ?1 WHERE id = 1",
    [STORE_RESTORED_SET] = "INSERT INTO restored(site, evidence, known, held, found_ms, accepted_ms) VALUES(?1, ?2, ?3, ?4, ?5, 0)"
                           " ON CONFLICT(site) DO UPDATE SET evidence = ?2, known = ?3, held = ?4, found_ms = ?5, accepted_ms = 0",
    [STORE_RESTORED_OPEN] = "SELECT found_ms, accepted_ms, held, evidence FROM restored WHERE site = ?1",
    [STORE_RESTORED_ACCEPT] = "UPDATE restored SET accepted_ms = ?1 WHERE accepted_ms = 0",
    [STORE_RESTORED_LIST] = "SELECT site, evidence, known, held, found_ms, accepted_ms FROM restored ORDER BY site LIMIT ?1",
    [STORE_ISSUE_RAISE_ALL] =
        "UPDATE object SET issue = 1 + (" HELD_MOST ") WHERE issue < (" HELD_MOST ") AND version IN"
        " (SELECT CASE WHEN a.state = 2 THEN a.former ELSE a.target END FROM aim a WHERE a.kind = object.kind AND a.name = "
        "object.name)"
        " AND NOT EXISTS (SELECT 1 FROM object o WHERE o.kind = object.kind AND o.name = object.name AND o.issue = (" HELD_MOST
        "))",
    [STORE_OBJECT_ISSUE] = "SELECT coalesce(max(issue), 0) FROM object WHERE kind = ?1 AND name = ?2",
    [STORE_SERIAL] = "SELECT revoked_ms FROM certificate WHERE serial = ?1",
    [STORE_SERIAL_REVOKE] = "UPDATE certificate SET revoked_ms = ?2 WHERE serial = ?1 AND revoked_ms = 0",
};

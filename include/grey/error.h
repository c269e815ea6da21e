/* error.h: every failure of Grey Edge has a name, and this is the list.
 *
 * X(name, id, HTTP status, sentence, what to do).  The enum, the problem type of the HTTP API ("/errors/GREY-1001"), the exit
 * code of greyctl, `greyctl explain` and docs/ERRORS.md come from here.  Ids are never reused.  Status 0: never reaches HTTP. */
#ifndef GREY_ERROR_H
#define GREY_ERROR_H

/* clang-format off */ /* one error, one line */
#define GREY_ERRORS(X) \
    /* answers of the site */ \
    X(E_NO_QUORUM, 1001, 503, "too few nodes of this site answer", "check power and cabling of the other gateways; stale reads go on") \
    X(E_NOT_LEADER, 1002, 503, "this node does not lead and knows no leader", "try again in a second; see 'greyctl cluster status'") \
    X(E_OUTCOME_UNKNOWN, 1003, 504, "the request was proposed, its fate is unknown", "repeat it with the same id; it takes effect once") \
    X(E_BUSY, 1004, 429, "a queue of this node is full", "slow down and repeat; see 'greyctl queue'") \
    X(E_QUEUE_FULL, 1005, 507, "the site's queue is full", "bring the link to the core back, or raise federation.offline.queue_size_mb") \
    X(E_DISK_FULL, 1006, 507, "no space is left on the storage device", "free space below storage.data_dir; the node recovers by itself") \
    X(E_CONDITION, 1007, 412, "the condition of the request does not hold", "look at it again, and repeat with what it is now") \
    X(E_ID_REUSED, 1008, 409, "this id was used before with another body", "give each event and each task an id of its own") \
    X(E_NOT_FOUND, 1009, 404, "there is no such thing", "check the name") \
    X(E_METHOD, 1010, 405, "this path does not take that method", "see docs/openapi.yaml") \
    X(E_TOO_LARGE, 1011, 413, "the request is larger than the limit", "split it; limits are in docs/CONFIGURATION.md") \
    X(E_BAD_REQUEST, 1012, 400, "the request is malformed", "correct the named field") \
    X(E_DENIED, 1013, 403, "the caller has no right to do that", "use an account or a token with the role named in the answer") \
    X(E_TIMEOUT, 1014, 504, "no answer came in time", "check the link and repeat") \
    X(E_LOG_FULL, 1015, 429, "too many proposals are in flight", "slow down and repeat") \
    X(E_STOPPING, 1016, 503, "this node is stopping", "ask another node of the site") \
    X(E_MEMBER_CHANGE_PENDING, 1017, 409, "another membership change is under way", "wait until it is done and repeat") \
    X(E_NOT_HERE_YET, 1018, 501, "this part is not enabled on this node", "see docs/CONFIGURATION.md") \
    X(E_KV_FULL, 1019, 507, "the site keeps no more keys", "delete keys that are not needed; bounds are in docs/CONFIGURATION.md") \
    X(E_MEMBERSHIP, 1020, 409, "the site would not be able to go on after that", "bring the other gateways back first; see 'greyctl cluster members'") \
    X(E_WITNESS, 1021, 421, "this gateway is a witness: it votes, and holds no data", "ask another gateway of the site; the detail names the leader") \
    X(E_QUOTA, 1022, 409, "the shares would be more than there is", "lower another share first; see 'greyctl tenant list'") \
    X(E_CYCLE, 1023, 409, "the tasks would wait for each other", "break the cycle that the answer names") \
    X(E_THROTTLED, 1024, 429, "the site is above 90% and too many tasks wait", "repeat after the time in Retry-After; see 'greyctl tenant list'") \
    X(E_UNKNOWN_CALLER, 1025, 401, "the caller is not known", "give a token of this site: 'greyctl token create' makes one, on the gateway itself") \
    X(E_TOO_OFTEN, 1026, 429, "this caller asks too often", "repeat after the time in Retry-After") \
    X(E_IMAGE_ROOT, 1027, 403, "the image asks for root, which this gateway forbids", "give the image a User that is not root, or start grey-launch with --image-root allow") \
    /* outside bytes */ \
    X(E_BAD_CBOR, 2001, 400, "the bytes are not deterministic CBOR", "the sender is faulty or of another version") \
    X(E_BAD_FRAME, 2002, 400, "the bytes are not a Grey frame", "check that both ends speak Grey Protocol v2") \
    X(E_BAD_VERSION, 2003, 400, "the other side speaks another version", "upgrade the older side") \
    X(E_BAD_CRC, 2004, 400, "the checksum does not match", "the line or a memory is faulty; the frame is sent again") \
    X(E_BAD_MESSAGE, 2005, 400, "a message lacks a field or has one out of range", "the sender is faulty or of another version") \
    X(E_BAD_JSON, 2006, 400, "the text is not JSON", "correct the named place") \
    X(E_BAD_HTTP, 2007, 400, "the bytes are not HTTP/1.1", "check the client and the port") \
    X(E_UNKNOWN_ENTRY, 2008, 0, "the log holds an entry of a kind this version does not know", "upgrade greyd on this node") \
    X(E_WRONG_SITE, 2009, 403, "the other side belongs to another site or cluster", "check site.id and --join of both nodes") \
    X(E_STALE_MEMBER, 2010, 403, "the other side is an old incarnation of a member", "wipe its data directory and join it again") \
    /* identity */ \
    X(E_TLS, 3001, 0, "the TLS handshake failed", "check certificates and clocks of both sides") \
    X(E_CERT, 3002, 0, "a certificate is not acceptable", "check issuer, names and validity with 'openssl x509 -text'") \
    X(E_KEY, 3003, 0, "a key cannot be read or used", "check the file, its owner and its mode") \
    X(E_SEAL, 3004, 0, "a seal over the log does not hold", "'greyctl audit verify' names the place; start greyd again: it takes the log from the other gateways anew") \
    X(E_TOKEN_UNKNOWN, 3011, 403, "there is no such enrolment token", "make one at the core: 'greyctl enroll token --site S'; or the text was cut while copying") \
    X(E_TOKEN_USED, 3012, 403, "the enrolment token is used up", "make a new one at the core for the gateways that are left") \
    X(E_TOKEN_EXPIRED, 3013, 403, "the enrolment token has expired", "make a new one at the core; --ttl says how long it holds") \
    X(E_TOKEN_SITE, 3014, 403, "the enrolment token is for another site", "use this site's token, or set site.id right") \
    X(E_TOKEN_NODE, 3015, 409, "another gateway was enrolled under this name", "give each gateway its own node.id; a gateway that lost its key takes a new token") \
    X(E_CSR, 3016, 400, "the certificate request is not acceptable", "correct what the answer names; 'greyd enroll' makes a good one") \
    X(E_FINGERPRINT, 3017, 0, "the server is not the core that the token names", "check the URL; if it is right, somebody answers in the core's place: do not go on") \
    X(E_REVOKED, 3018, 403, "the certificate of this key is revoked", "enrol the gateway with a new key and a new token, if it may come back") \
    X(E_STORE_RESTORED, 3019, 403, "it was made before the core's store was put back to an older state", "make it anew; 'greyctl store status' and docs/SECURITY.md, \"An older store\", say what else to look at") \
    X(E_SEALED, 3101, 0, "an encrypted message does not hold", "somebody between the site and the core changes messages, or one of them has another key; see federation.upstream.core_key") \
    X(E_REPEATED, 3102, 0, "an encrypted message came a second time", "nothing, now and then; often: somebody between the site and the core repeats messages") \
    /* attestation */ \
    X(E_ATTEST_FORMAT, 3201, 400, "the evidence is malformed or too large", "the gateway is of another version, or somebody tries; see the log") \
    X(E_ATTEST_TYPE, 3202, 403, "this kind of evidence is not accepted here", "name the kind in the attestation policy, or give the board a TPM") \
    X(E_ATTEST_NONCE, 3203, 403, "the evidence does not answer the question that was asked", "nothing: the gateway is asked again; if it repeats, somebody replays old evidence") \
    X(E_ATTEST_IDENTITY, 3204, 403, "the evidence speaks for another gateway", "look at the gateway: its disk or its TPM was moved, or it was cloned") \
    X(E_ATTEST_EK, 3205, 403, "the TPM's endorsement certificate is not acceptable", "add the manufacturer's certificates to the roots, if you trust that maker") \
    X(E_ATTEST_KEY, 3206, 403, "the attestation key is none: it could sign what its TPM did not make", "enrol the gateway anew with 'greyd enroll'") \
    X(E_ATTEST_UNPROVEN, 3207, 403, "the attestation key was not proven to live in that TPM", "enrol the gateway anew with 'greyd enroll'") \
    X(E_ATTEST_SIGNATURE, 3208, 403, "the signature over the evidence does not hold", "look at the gateway; if it was replaced, enrol it anew") \
    X(E_ATTEST_QUOTE, 3209, 403, "what was signed is not a quote made by a TPM", "look at the gateway: somebody forged evidence on it") \
    X(E_ATTEST_BINDING, 3210, 403, "the quote was made for other evidence", "look at the gateway and at the way to it: evidence was changed") \
    X(E_ATTEST_SELECTION, 3211, 403, "the quote covers other registers than were asked for", "look at the gateway: somebody hides a register") \
    X(E_ATTEST_PCR, 3212, 403, "the register values are not those that the TPM signed", "look at the gateway and at the way to it: evidence was changed") \
    X(E_ATTEST_COUNTERS, 3213, 403, "the TPM's clock or counters went back", "look at the gateway: an old state of its TPM was put back, or it was cleared") \
    X(E_ATTEST_FIRMWARE, 3214, 403, "the TPM's firmware is not the accepted one", "add the version to the policy after you have updated it yourself") \
    X(E_ATTEST_BOOT_LOG, 3215, 403, "the boot's event log does not lead to the register values", "look at the gateway: its boot or its log was tampered with") \
    X(E_ATTEST_START_LOG, 3216, 403, "the log of the agent's starts does not lead to the register value", "look at the gateway: something else was started or measured on it") \
    X(E_ATTEST_REFERENCE, 3217, 403, "something was measured that the policy does not accept", "announce the new version in the policy; if there is none, look at the gateway") \
    X(E_ATTEST_DOCUMENT, 3218, 403, "the instance's identity document is not acceptable", "check its signer, its names and its dates") \
    X(E_ATTEST_RESULT, 3219, 403, "the attestation result is not acceptable", "attest the gateway anew with 'greyctl attest now'") \
    X(E_ATTEST_EXPIRED, 3220, 403, "the attestation result has expired", "bring the link to the core back; the gateway is attested anew by itself") \
    X(E_ATTEST_POLICY, 3221, 0, "the attestation policy is not acceptable", "correct the named field, or use a serial number above the last one") \
    X(E_TPM, 3222, 0, "the TPM refused or is not there", "see the detail; is the user in the group tss, is the TPM enabled in the firmware?") \
    X(E_TLS_VERSION, 3240, 0, "this build has no TLS 1.3", "set security.tls.min_version to 1.2, or use a build with mbedTLS 3.6 (Debian 13)") \
    X(E_TLS_OLD, 3241, 0, "the other side speaks an older TLS than is taken here, or only suites that are not", "upgrade the other side; if it is none of yours, somebody tries to have the link weaker than it is") \
    X(E_VAULT_AWAY, 3242, 0, "the service that keeps this gateway's keys does not answer", "'systemctl status grey-tpm'; is the TPM enabled in the firmware?") \
    X(E_VAULT_OTHER, 3243, 0, "the key was made in the TPM of another machine", "put the disk back into its own gateway, or enrol this one anew: 'greyd enroll' with a new token") \
    X(E_VAULT_LIBRARY, 3244, 0, "this build cannot use a TLS key that lies in a TPM", "enrol with '--key sealed': a key in a file that only this TPM opens") \
    /* updates */ \
    X(E_UPDATE_FORMAT, 3301, 400, "the file is no bundle of an update", "make it with 'grey-update pack'; or it was cut while copying") \
    X(E_UPDATE_SIGNATURE, 3302, 403, "the update is not signed with the key of this gateway", "see docs/UPDATES.md for keys; if it came from your core, somebody tries to bring in programs") \
    X(E_UPDATE_PRODUCT, 3303, 409, "the update is for another product or architecture", "give each board the bundle that was made for it") \
    X(E_UPDATE_OLDER, 3304, 409, "the update is older than what this gateway may go back to", "use a newer one; to go back on purpose: 'grey-update allow', on the gateway, as root") \
    X(E_UPDATE_CONTENT, 3305, 400, "a file of the update is not the one that was signed", "copy the bundle again; if it repeats, look at the storage device") \
    X(E_UPDATE_SLOTS, 3306, 409, "this gateway has no slots for updates", "set update.slots, and see docs/UPDATES.md; or update its package") \
    X(E_UPDATE_STATE, 3307, 409, "what the slots remember is damaged", "the gateway runs on as it is; look at 'grey-update show' and docs/UPDATES.md") \
    X(E_UPDATE_UNHEALTHY, 3308, 409, "the update was tried and did not get well in its time", "see the log of greyd of that time; a mended version comes as another bundle") \
    X(E_UPDATE_SILENT, 3309, 409, "a gateway said nothing of its update in time", "look at the gateway: 'grey-update show', and the log of grey-update") \
    X(E_UPDATE_BUSY, 3310, 409, "another update is being tried on this gateway", "wait until it is confirmed or rolled back") \
    /* machine */ \
    X(E_NO_MEMORY, 4001, 503, "no memory is left", "raise the memory limit of the service") \
    X(E_IO, 4002, 503, "the storage device answered with an error", "see the log; replace the device if it repeats") \
    X(E_CORRUPT, 4003, 503, "stored data is damaged", "the node mends it from its peers; see the log") \
    X(E_ADDRESS_IN_USE, 4004, 0, "the address is in use", "stop the other program or choose another port") \
    X(E_CONNECT, 4005, 503, "the other side cannot be reached", "check the address, the cable and the firewall") \
    X(E_CLOSED, 4006, 503, "the other side closed the connection", "see its log") \
    X(E_SYSTEM, 4007, 500, "the operating system refused a request", "see the detail") \
    X(E_LOCKED, 4008, 0, "the data directory is in use by another process", "stop the other greyd, or choose another --data-dir") \
    X(E_DISK_VERSION, 4009, 0, "the data directory was written by another version", "use the version that wrote it, or upgrade") \
    X(E_STATE_DIFFERS, 4011, 0, "this node's state differs from that of the majority", "start greyd again: it joins its site anew and is given the state; please report it with the log") \
    X(E_CONFLICT, 4012, 503, "another process changed the same rows at the same time", "nothing: it is tried again by itself") \
    X(E_ROLLED_BACK, 4010, 0, "this node runs on an older copy of its disk", "nothing: it joins its site anew; see the log for who remembers what") \
    /* configuration and command line */ \
    X(E_CONFIG, 5001, 0, "the configuration is not acceptable", "correct the named line") \
    X(E_USAGE, 5002, 0, "the command line is not acceptable", "see --help") \
    X(E_BUG, 9001, 500, "this is a fault of the program", "please report it with the log")
/* clang-format on */

enum grey_error {
    E_OK = 0,
#define X(name, id, status, sentence, remedy) name,
    GREY_ERRORS(X)
#undef X
        GREY_ERROR_COUNT
};

#endif

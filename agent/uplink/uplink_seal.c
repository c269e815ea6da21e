#include <stdio.h>
#include <string.h>

#include "agent/uplink/uplink_core.h"
#include "federation/frame.h"
#include "include/grey/must.h"
#include "platform/cert.h"
#include "platform/keyring.h"
#include "platform/log.h"
#include "platform/wholefile.h"

/* The hello is signed on the crypto worker: a key may lie in a TPM, and take its time. */

#define PEM_BYTES_MAX (64u * 1024u)

struct uplink_seal_job {
    struct worker_job job;
    struct uplink *u; /* NULL: it is gone */
    uint64_t session;
    struct handshake handshake;
    struct builder hello, content;
    char cert_path[LIMIT_PATH_BYTES + 1], key_path[LIMIT_PATH_BYTES + 1];
    enum grey_error err;
    struct fault fault;
};

/* --- on the crypto worker ------------------------------------------------------------------------------------------------------------------- */

static enum grey_error sign(struct uplink_seal_job *j, struct bytes cert, struct builder *signature) {
    struct keysign key = {0};
    uint8_t proof[DIGEST_SHA256_BYTES];
    handshake_proof(&j->handshake, builder_bytes(&j->hello), cert, proof);
    enum grey_error err = keyring_open(j->key_path, &key, &j->fault);
    err = err != E_OK ? err : key.sign(key.key, proof, signature, &j->fault);
    keysign_close(&key);
    return err;
}

static void make_hello(struct worker_job *job) {
    struct uplink_seal_job *j = (struct uplink_seal_job *)(void *)job;
    struct builder pem, cert, signature;
    builder_init(&pem, PEM_BYTES_MAX);
    builder_init(&cert, HANDSHAKE_CERT_BYTES_MAX);
    builder_init(&signature, HANDSHAKE_SIGNATURE_BYTES_MAX);
    j->err = wholefile_read(j->cert_path, &pem, &j->fault);
    j->err = j->err != E_OK ? j->err : cert_to_der((const char *)pem.data, &cert, &j->fault);
    j->err = j->err != E_OK ? j->err : sign(j, builder_bytes(&cert), &signature);
    if (j->err == E_OK) {
        handshake_put_hello(&j->content, &j->handshake, builder_bytes(&j->hello), builder_bytes(&cert), builder_bytes(&signature));
        j->err = j->content.err;
    }
    builder_free(&pem);
    builder_free(&cert);
    builder_free(&signature);
}

/* --- hello and welcome ---------------------------------------------------------------------------------------------------------------------- */

static void hello_made(struct worker_job *job) {
    struct uplink_seal_job *j = (struct uplink_seal_job *)(void *)job;
    struct uplink *u = j->u;
    if (u != NULL) {
        u->seal.job = NULL;
    }
    if (u != NULL && j->err != E_OK) {
        char why[UPLINK_ERROR_BYTES];
        (void)snprintf(why, sizeof why, "the hello could not be signed: %.200s", j->fault.text);
        uplink_note_error(u, why);
        log_limited(LOG_ERROR, "uplink", "seal", "%s", why);
    } else if (u != NULL && u->leads && u->session == j->session && !u->welcomed && mqtt_connected(u->mqtt)) {
        u->seal.handshake = j->handshake;
        u->seal.awaits = true;
        (void)uplink_send_content(u, CHANNEL_CONTROL, builder_bytes(&j->content), FRAME_FLAG_PRIORITY); /* else it is said again */
    }
    cipher_wipe(&j->handshake, sizeof j->handshake);
    builder_free(&j->hello);
    builder_free(&j->content);
    mem_free(j);
}

bool uplink_seal_hello(struct uplink *u, struct bytes hello) {
    uint8_t fresh[KEYS_X25519_BYTES];
    if (u->seal.job != NULL) {
        return false; /* of a session before: soon */
    }
    struct uplink_seal_job *j = mem_new(1, sizeof *j);
    if (j == NULL) {
        return false;
    }
    j->job = (struct worker_job){.work = make_hello, .done = hello_made};
    j->u = u;
    j->session = u->session;
    builder_init(&j->hello, hello.size);
    builder_add(&j->hello, hello);
    builder_init(&j->content, LIMIT_FRAME_PAYLOAD_BYTES);
    (void)snprintf(j->cert_path, sizeof j->cert_path, "%s", u->seal.cert_path);
    (void)snprintf(j->key_path, sizeof j->key_path, "%s", u->seal.key_path);
    keys_random(fresh, sizeof fresh);
    bool well = j->hello.err == E_OK && handshake_begin(&j->handshake, u->site, u->o.core_key, fresh) &&
                worker_submit(u->x.crypto, &j->job) == E_OK;
    cipher_wipe(fresh, sizeof fresh);
    if (!well) {
        builder_free(&j->hello);
        mem_free(j);
        return false;
    }
    u->seal.job = j;
    return true;
}

enum grey_error uplink_seal_welcome(struct uplink *u, struct bytes content, struct builder *scratch, struct bytes *welcome) {
    struct handshake_keys keys;
    if (!u->seal.awaits) {
        return E_SEALED;
    }
    enum grey_error err = handshake_get_welcome(&u->seal.handshake, content, scratch, welcome, &keys);
    if (err == E_OK) {
        envelope_sender_init(&u->seal.up, ENVELOPE_UP, keys.up, loop_now_ms(u->x.loop));
        envelope_receiver_init(&u->seal.down, ENVELOPE_DOWN, keys.down);
        u->seal.awaits = false;
        u->seal.ready = true;
    }
    cipher_wipe(&keys, sizeof keys);
    return err;
}

/* --- frames --------------------------------------------------------------------------------------------------------------------------------- */

enum grey_error uplink_seal_put(struct uplink *u, enum event_channel c, struct bytes frame, struct builder *out) {
    return envelope_seal(&u->seal.up, c, frame, loop_now_ms(u->x.loop), out);
}

enum grey_error uplink_seal_get(struct uplink *u, enum event_channel c, struct frame *f, struct builder *scratch) {
    if ((f->flags & FRAME_FLAG_ENCRYPTED) == 0) {
        return E_OK; /* what it may say is for the caller */
    }
    struct frame plain;
    enum grey_error err = u->seal.ready ? envelope_open(&u->seal.down, c, f, scratch, &plain) : E_SEALED;
    if (err == E_OK) {
        *f = plain;
    }
    return err;
}

/* Before a session, and between two, the core may say where it stands, and nothing that could be believed. */
bool uplink_seal_may_be_plain(const struct uplink *u, enum message_kind kind) {
    return !u->seal.on || kind == MESSAGE_DOWN_SEALED_WELCOME || kind == MESSAGE_DOWN_ROUTE || kind == MESSAGE_DOWN_RESYNC;
}

/* --- life ----------------------------------------------------------------------------------------------------------------------------------- */

void uplink_seal_begin(struct uplink *u) {
    u->seal.on = u->o.seal && u->o.has_core_key;
    (void)snprintf(u->seal.cert_path, sizeof u->seal.cert_path, "%s", u->o.cert_path == NULL ? "" : u->o.cert_path);
    (void)snprintf(u->seal.key_path, sizeof u->seal.key_path, "%s", u->o.key_path == NULL ? "" : u->o.key_path);
}

void uplink_seal_end(struct uplink *u) {
    u->seal.ready = u->seal.awaits = false;
    cipher_wipe(&u->seal.handshake, sizeof u->seal.handshake);
    cipher_wipe(&u->seal.up, sizeof u->seal.up);
    cipher_wipe(&u->seal.down, sizeof u->seal.down);
}

void uplink_seal_free(struct uplink *u) {
    uplink_seal_end(u);
    if (u->seal.job != NULL) {
        u->seal.job->u = NULL;
    }
}

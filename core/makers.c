#include "core/makers.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "include/grey/limits.h"
#include "platform/ekcert.h"
#include "platform/log.h"
#include "platform/metrics.h"
#include "platform/wholefile.h"

#define ROOTS_BYTES_MAX (1024u * 1024u)
#define LOOK_MS 60000u

enum { ROOTS, VTPM_ROOTS, DOCUMENT_KEYS, FILES };

struct makers_watch {
    struct loop *loop;
    struct loop_timer timer;
    struct makers *now;
    char paths[FILES][LIMIT_PATH_BYTES + 1]; /* "": none */
    struct timespec changed[FILES];
};

static const char *const results[] = {"read", "refused"};
static struct metric readings = METRIC_COUNTER_LABELS(
    "grey_core_attest_makers_read_total", "Files of makers and signers that changed, and were taken or not.", "result", results);

/* --- reading ------------------------------------------------------------------------------------------------------------------------------ */

static enum grey_error read_roots(const char *path, struct builder *pem, const char **out, struct fault *f) {
    struct fault inner = {0};
    enum grey_error err = path[0] == 0 ? E_OK : wholefile_read(path, pem, f);
    if (err != E_OK || path[0] == 0) {
        return err;
    }
    *out = (const char *)pem->data;
    err = ekcert_roots(*out, &inner);
    return err == E_OK ? E_OK : fault_set(f, err, "%.120s: %.120s", path, inner.text);
}

static enum grey_error read_keys(const char *path, struct makers *m, struct fault *f) {
    struct builder text;
    char *save = NULL;
    builder_init(&text, MAKERS_DOCUMENT_KEYS_MAX * 256u);
    enum grey_error err = path[0] == 0 ? E_OK : wholefile_read(path, &text, f);
    char *line = err == E_OK && path[0] != 0 ? strtok_r((char *)text.data, "\n", &save) : NULL;
    for (; line != NULL && err == E_OK; line = strtok_r(NULL, "\n", &save)) {
        if (line[0] == '#') {
            continue;
        }
        if (m->document_key_count == MAKERS_DOCUMENT_KEYS_MAX || strlen(line) != 2 * (size_t)KEYS_ED25519_PUBLIC_BYTES ||
            !bytes_unhex(line, KEYS_ED25519_PUBLIC_BYTES, m->document_keys[m->document_key_count++])) {
            err =
                fault_set(f, E_CONFIG, "%.100s: expected up to %u lines of 64 hexadecimal digits", path, MAKERS_DOCUMENT_KEYS_MAX);
        }
    }
    builder_free(&text);
    return err;
}

static struct makers *read_all(const struct makers_watch *w, struct fault *f) {
    struct makers *m = mem_new(1, sizeof *m);
    if (m == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "makers of TPMs");
        return NULL;
    }
    m->holders = 1;
    builder_init(&m->roots, ROOTS_BYTES_MAX);
    builder_init(&m->vtpm_roots, ROOTS_BYTES_MAX);
    enum grey_error err = read_roots(w->paths[ROOTS], &m->roots, &m->roots_pem[ATTEST_TPM2], f);
    err = err != E_OK ? err : read_roots(w->paths[VTPM_ROOTS], &m->vtpm_roots, &m->roots_pem[ATTEST_VTPM], f);
    err = err != E_OK ? err : read_keys(w->paths[DOCUMENT_KEYS], m, f);
    if (err != E_OK) {
        makers_release(m);
        return NULL;
    }
    return m;
}

struct makers *makers_hold(struct makers_watch *w) {
    w->now->holders++;
    return w->now;
}

void makers_release(struct makers *m) {
    if (m != NULL && --m->holders == 0) {
        builder_free(&m->roots);
        builder_free(&m->vtpm_roots);
        mem_free(m);
    }
}

/* --- looking ------------------------------------------------------------------------------------------------------------------------------ */

/* Whether one of the files is another than when this was asked last. */
static bool changed(struct makers_watch *w) {
    bool any = false;
    for (size_t i = 0; i < FILES; i++) {
        struct stat s = {0};
        if (w->paths[i][0] != 0 && stat(w->paths[i], &s) == 0 &&
            (s.st_mtim.tv_sec != w->changed[i].tv_sec || s.st_mtim.tv_nsec != w->changed[i].tv_nsec)) {
            w->changed[i] = s.st_mtim;
            any = true;
        }
    }
    return any;
}

void makers_reload(struct makers_watch *w) {
    struct fault f = {0};
    if (w == NULL) {
        return;
    }
    (void)changed(w);
    struct makers *fresh = read_all(w, &f);
    metrics_add(&readings, fresh == NULL, 1);
    if (fresh == NULL) {
        log_error("attest", "makers", "error=GREY-%d %s: %s; those that were read before go on", error_id(f.code),
                  error_sentence(f.code), f.text);
        return;
    }
    makers_release(w->now);
    w->now = fresh;
    log_info("attest", "makers", "read again: whose TPMs and documents are trusted");
}

static void look(void *context) {
    struct makers_watch *w = context;
    loop_timer_after(w->loop, &w->timer, LOOK_MS);
    if (changed(w)) {
        makers_reload(w);
    }
}

struct makers_watch *makers_watch_new(struct loop *loop, const struct makers_files *files, struct fault *f) {
    const char *const paths[FILES] = {files->roots, files->vtpm_roots, files->document_keys};
    struct makers_watch *w = mem_new(1, sizeof *w);
    if (w == NULL) {
        (void)fault_set(f, E_NO_MEMORY, "makers of TPMs");
        return NULL;
    }
    metrics_register(&readings);
    w->loop = loop;
    w->timer = (struct loop_timer){.fire = look, .context = w};
    for (size_t i = 0; i < FILES; i++) {
        (void)snprintf(w->paths[i], sizeof w->paths[i], "%s", paths[i]);
    }
    (void)changed(w);
    w->now = read_all(w, f);
    if (w->now == NULL) {
        mem_free(w);
        return NULL;
    }
    loop_timer_after(loop, &w->timer, LOOK_MS);
    return w;
}

void makers_watch_free(struct makers_watch *w) {
    if (w != NULL) {
        loop_timer_cancel(w->loop, &w->timer);
        makers_release(w->now);
        mem_free(w);
    }
}

/* Seals beside the log: whoever changes an entry on a disk and mends the chain behind it is found out. */
#include "tests/unit/sitelog_rig.h"

static struct sealdb_signer signer;
static uint8_t secret[KEYS_ED25519_SECRET_BYTES];

static void seal_done(void *context, struct sitelog_seal *job) {
    (void)job;
    stop_when_done(context);
}

static struct seal seal_at(const struct disk *d, uint64_t cluster_id) {
    struct seal s = {.index = d->last.index, .epoch = d->last.term, .signer = signer.id};
    memcpy(s.hash, d->last.hash, DIGEST_BYTES);
    seal_sign(&s, cluster_id, secret);
    return s;
}

static void run_seal(struct disk *d, struct sitelog_seal *job) {
    struct wait w = {.loop = d->loop, .left = 1};
    job->done = seal_done;
    job->context = &w;
    assert_int_equal(sitelog_seal(d->log, job), E_OK);
    loop_run(d->loop);
}

static enum grey_error put(struct disk *d, const struct seal *s) {
    struct sitelog_seal job = {.kind = SITELOG_SEAL_PUT, .seal = *s, .signer = signer};
    run_seal(d, &job);
    return job.err;
}

static void begin(struct disk *d) {
    make_dir(d);
    signer = (struct sealdb_signer){.id = 0xfedcba9876543210, .node = {"gw-1"}};
    keys_new_ed25519(signer.public_key, secret);
    assert_int_equal(open_disk(d), E_OK);
}

static void end(struct disk *d) {
    close_disk(d);
    remove_dir(d);
}

static void log_path(const struct disk *d, char out[128]) {
    (void)snprintf(out, 128, "%s/log/log.db", d->dir);
}

/* Entry `index` gets another payload, and all behind it new digests and hashes: a log without a flaw of its own. */
static void forge(const struct disk *d, raft_index index, raft_index last) {
    char path[128];
    struct fault f = {0};
    struct entry *entries;
    struct raft_point before;
    uint32_t count;
    log_path(d, path);
    struct logdb *l = logdb_open(path, &f);
    assert_non_null(l);
    assert_int_equal(logdb_entries(l, index, last, UINT64_MAX, &entries, &count, &f), E_OK);
    assert_int_equal(logdb_point(l, index - 1, &before, &f), E_OK);
    entries[0].payload->data[0] ^= 1;
    assert_int_equal(logdb_begin(l, &f), E_OK);
    assert_int_equal(logdb_truncate(l, index, &f), E_OK);
    for (uint32_t i = 0; i < count; i++) {
        entry_seal(&entries[i], before.hash);
        memcpy(before.hash, entries[i].hash, DIGEST_BYTES);
        assert_int_equal(logdb_append(l, &entries[i], &f), E_OK);
    }
    assert_int_equal(logdb_commit(l, &f), E_OK);
    logdb_entries_free(entries, count);
    logdb_close(l);
}

/* If this failed, the history could not be verified after a restart. */
static void seals_are_there_after_a_restart(void **state) {
    (void)state;
    struct disk d;
    begin(&d);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(store(&d, make_entries(&d, 100, 40, 3), 100), E_OK);
        struct seal s = seal_at(&d, 0);
        assert_int_equal(put(&d, &s), E_OK);
    }
    struct seal newest = seal_at(&d, 0);
    reopen(&d);
    assert_memory_equal(&d.start.seal, &newest, sizeof newest);
    struct sitelog_seal job = {.kind = SITELOG_SEAL_LIST, .from = 150, .to = 350};
    run_seal(&d, &job);
    assert_int_equal(job.err, E_OK);
    assert_int_equal(job.seal_count, 3); /* 200, 300, and 400 that vouches for the rest */
    assert_int_equal(job.seals[0].index, 200);
    assert_int_equal(job.seals[2].index, 400);
    assert_int_equal(job.before.index, 149);
    assert_int_equal(job.signer_count, 1);
    assert_memory_equal(&job.signers[0], &signer, sizeof signer);
    assert_true(seal_verify(&job.seals[1], 0, job.signers[0].public_key));
    mem_free(job.seals);
    mem_free(job.signers);
    end(&d);
}

/* If this failed, a seal could outrun what it vouches for, and the log would seem to have lost its end after a power cut. */
static void nothing_is_sealed_before_it_is_stored(void **state) {
    (void)state;
    struct disk d;
    begin(&d);
    assert_int_equal(store(&d, make_entries(&d, 10, 40, 3), 10), E_OK);
    struct entry *next = make_entries(&d, 1, 40, 3);
    struct seal s = seal_at(&d, 0);
    assert_int_equal(put(&d, &s), E_OK);
    struct sitelog_seal job = {.kind = SITELOG_SEAL_LIST, .from = 1, .to = 11};
    run_seal(&d, &job);
    assert_int_equal(job.err, E_OK);
    assert_int_equal(job.seal_count, 0);
    mem_free(job.seals);
    mem_free(job.signers);
    assert_int_equal(store(&d, next, 1), E_OK); /* takes it along */
    reopen(&d);
    assert_int_equal(d.start.seal.index, 11);
    end(&d);
}

/* If this failed, whoever can write to a disk could change what happened (FAULTS S21). */
static void a_forged_entry_is_found_at_the_start(void **state) {
    (void)state;
    struct disk d;
    begin(&d);
    assert_int_equal(store(&d, make_entries(&d, 300, 40, 3), 300), E_OK);
    struct seal s = seal_at(&d, 0);
    assert_int_equal(put(&d, &s), E_OK);
    assert_int_equal(store(&d, make_entries(&d, 20, 40, 3), 20), E_OK);
    close_disk(&d);
    forge(&d, 17, 320);
    assert_int_equal(open_disk(&d), E_CORRUPT); /* a node of its own: there is nobody to take the log from */
    assert_non_null(strstr(d.fault.text, "entry 300 or one before it is not what gw-1 sealed in epoch 3"));
    table_free(d.table);
    loop_free(d.loop);
    d.rejoins = true;
    assert_int_equal(open_disk(&d), E_OK); /* set aside */
    assert_true(d.start.fresh);
    assert_int_equal(d.start.seal.index, 0);
    end(&d);
}

/* If this failed, a forged log could be passed off with a seal made by somebody else, or by cutting off what was sealed. */
static void forged_seals_and_lost_ends_are_found(void **state) {
    (void)state;
    struct disk d;
    char path[128];
    struct fault f = {0};
    begin(&d);
    assert_int_equal(store(&d, make_entries(&d, 100, 40, 3), 100), E_OK);
    struct seal s = seal_at(&d, 99); /* of another cluster */
    assert_int_equal(put(&d, &s), E_OK);
    close_disk(&d);
    assert_int_equal(open_disk(&d), E_CORRUPT);
    assert_non_null(strstr(d.fault.text, "was not made with the key of gw-1"));
    table_free(d.table);
    loop_free(d.loop);
    remove_dir(&d);

    begin(&d);
    assert_int_equal(store(&d, make_entries(&d, 100, 40, 3), 100), E_OK);
    s = seal_at(&d, 0);
    assert_int_equal(put(&d, &s), E_OK);
    close_disk(&d);
    log_path(&d, path);
    struct logdb *l = logdb_open(path, &f);
    assert_non_null(l);
    assert_int_equal(logdb_begin(l, &f), E_OK);
    assert_int_equal(logdb_truncate(l, 90, &f), E_OK);
    assert_int_equal(logdb_commit(l, &f), E_OK);
    logdb_close(l);
    assert_int_equal(open_disk(&d), E_CORRUPT);
    assert_non_null(strstr(d.fault.text, "log.db ends at entry 89, but gw-1 sealed entry 100"));
    table_free(d.table);
    loop_free(d.loop);
    remove_dir(&d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(seals_are_there_after_a_restart), cmocka_unit_test(nothing_is_sealed_before_it_is_stored),
        cmocka_unit_test(a_forged_entry_is_found_at_the_start), cmocka_unit_test(forged_seals_and_lost_ends_are_found)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

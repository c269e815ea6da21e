#include "federation/raft/member.h"

#include <string.h>

#include "include/grey/must.h"
#include "platform/codec.h"

enum { MEMBER_VOTER = 1, MEMBER_VOTER_OLD = 2, MEMBER_WITNESS = 4, MEMBER_LEAVING = 8, MEMBER_FLAGS_MAX = 15 };

const struct raft_member *raft_members_find(const struct raft_members *m, raft_id id) {
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->at[i].id == id) {
            return &m->at[i];
        }
    }
    return NULL;
}

/* How new an entry is among those of one name: a wiped node comes back as a learner, then votes, while its former self leaves. */
static int member_newness(const struct raft_member *member) {
    if (!member->voter && !member->voter_old) {
        return 3;
    }
    return member->leaving ? 0 : member->voter_old ? 1 : 2;
}

const struct raft_member *raft_members_find_node(const struct raft_members *m, const char *node) {
    const struct raft_member *found = NULL;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct raft_member *member = &m->at[i];
        if (strcmp(member->node.text, node) == 0 && (found == NULL || member_newness(member) > member_newness(found))) {
            found = member;
        }
    }
    return found;
}

bool raft_members_joint(const struct raft_members *m) {
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->at[i].voter_old) {
            return true;
        }
    }
    return false;
}

enum grey_error raft_members_put(struct raft_members *m, const struct raft_member *member) {
    uint32_t at = 0;
    while (at < m->count && m->at[at].id < member->id) {
        at++;
    }
    if (at == m->count || m->at[at].id != member->id) {
        if (m->count >= LIMIT_MEMBERS) {
            return E_TOO_LARGE;
        }
        memmove(&m->at[at + 1], &m->at[at], (m->count - at) * sizeof m->at[0]);
        m->count++;
    }
    m->at[at] = *member;
    return E_OK;
}

void raft_members_remove(struct raft_members *m, raft_id id) {
    for (uint32_t i = 0; i < m->count; i++) {
        if (m->at[i].id == id) {
            memmove(&m->at[i], &m->at[i + 1], (m->count - i - 1) * sizeof m->at[0]);
            m->count--;
            return;
        }
    }
}

static bool member_text_ends(const char *text, size_t size) {
    return memchr(text, 0, size) != NULL;
}

static bool member_ok(const struct raft_member *member) {
    return member->id != 0 && member_text_ends(member->node.text, sizeof member->node.text) &&
           grey_name_valid(member->node.text, strlen(member->node.text)) &&
           member_text_ends(member->peer_address, sizeof member->peer_address) &&
           member_text_ends(member->http_address, sizeof member->http_address) &&
           (!member->leaving || (member->voter_old && !member->voter));
}

enum grey_error raft_members_check(const struct raft_members *m) {
    if (m->count > LIMIT_MEMBERS) {
        return E_BAD_MESSAGE;
    }
    uint32_t voters = 0, voters_old = 0, witnesses = 0, witnesses_old = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (!member_ok(&m->at[i]) || (i > 0 && m->at[i].id <= m->at[i - 1].id)) {
            return E_BAD_MESSAGE;
        }
        voters += m->at[i].voter;
        voters_old += m->at[i].voter_old;
        witnesses += m->at[i].voter && m->at[i].witness;
        witnesses_old += m->at[i].voter_old && m->at[i].witness;
    }
    if (witnesses > voters / 2 || witnesses_old > voters_old / 2) { /* a majority is voters / 2 + 1 */
        return E_BAD_MESSAGE;
    }
    return voters == 0 || voters > LIMIT_VOTERS || voters_old > LIMIT_VOTERS ? E_BAD_MESSAGE : E_OK;
}

enum grey_error raft_members_plan(const struct raft_members *now, const struct raft_members *want, struct raft_members *next) {
    if (raft_members_check(want) != E_OK) {
        return E_BAD_MESSAGE;
    }
    uint32_t changes = 0;
    *next = *want;
    for (uint32_t i = 0; i < want->count; i++) {
        const struct raft_member *old = raft_members_find(now, want->at[i].id);
        next->at[i].voter_old = next->at[i].leaving = false;
        changes += want->at[i].voter != (old != NULL && old->voter);
    }
    for (uint32_t i = 0; i < now->count; i++) {
        changes += now->at[i].voter && raft_members_find(want, now->at[i].id) == NULL;
    }
    if (changes <= 1) {
        return E_OK;
    }
    for (uint32_t i = 0; i < now->count; i++) {
        if (!now->at[i].voter) {
            continue;
        }
        const struct raft_member *stays = raft_members_find(next, now->at[i].id);
        struct raft_member member = stays != NULL ? *stays : now->at[i];
        member.voter = stays != NULL && stays->voter;
        member.voter_old = true;
        member.leaving = stays == NULL;
        enum grey_error err = raft_members_put(next, &member);
        if (err != E_OK) {
            return err;
        }
    }
    return E_OK;
}

void raft_members_leave_joint(struct raft_members *m) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < m->count; i++) {
        if (!m->at[i].leaving) {
            m->at[kept] = m->at[i];
            m->at[kept++].voter_old = false;
        }
    }
    m->count = kept;
}

static const uint8_t no_key[RAFT_SIGN_KEY_BYTES];

void raft_members_encode(const struct raft_members *m, struct builder *out) {
    codec_put_array(out, m->count);
    for (uint32_t i = 0; i < m->count; i++) {
        const struct raft_member *member = &m->at[i];
        codec_put_array(out, 6);
        codec_put_uint(out, member->id);
        codec_put_uint(out, (member->voter ? MEMBER_VOTER : 0u) | (member->voter_old ? MEMBER_VOTER_OLD : 0u) |
                                (member->witness ? MEMBER_WITNESS : 0u) | (member->leaving ? MEMBER_LEAVING : 0u));
        codec_put_text(out, bytes_str(member->node.text));
        codec_put_text(out, bytes_str(member->peer_address));
        codec_put_text(out, bytes_str(member->http_address));
        bool has_key = memcmp(member->sign_key, no_key, sizeof no_key) != 0;
        codec_put_bytes(out, bytes_of(member->sign_key, has_key ? sizeof member->sign_key : 0));
    }
}

/* A text without NUL into a zeroed place. */
static void member_read_text(struct codec_reader *r, char *text, size_t size_max) {
    struct bytes in = codec_text(r, size_max);
    if (in.size > 0 && memchr(in.data, 0, in.size) != NULL) {
        r->err = E_BAD_MESSAGE;
    } else if (in.size > 0) {
        memcpy(text, in.data, in.size);
    }
}

enum grey_error raft_members_decode(struct bytes in, struct raft_members *m) {
    struct codec_reader r;
    memset(m, 0, sizeof *m);
    codec_reader_init(&r, in);
    uint64_t count = codec_array(&r, LIMIT_MEMBERS);
    for (uint64_t i = 0; i < count && r.err == E_OK; i++) {
        struct raft_member *member = &m->at[i];
        uint64_t fields = codec_array(&r, 6);
        if (fields < 5 && r.err == E_OK) {
            r.err = E_BAD_MESSAGE;
        }
        member->id = codec_uint(&r, UINT64_MAX);
        uint64_t flags = codec_uint(&r, MEMBER_FLAGS_MAX);
        member->voter = flags & MEMBER_VOTER;
        member->voter_old = flags & MEMBER_VOTER_OLD;
        member->witness = flags & MEMBER_WITNESS;
        member->leaving = flags & MEMBER_LEAVING;
        member_read_text(&r, member->node.text, LIMIT_NAME_BYTES);
        member_read_text(&r, member->peer_address, LIMIT_ADDRESS_BYTES);
        member_read_text(&r, member->http_address, LIMIT_ADDRESS_BYTES);
        struct bytes key = fields == 6 ? codec_bytes(&r, RAFT_SIGN_KEY_BYTES) : bytes_of(NULL, 0);
        if (key.size == RAFT_SIGN_KEY_BYTES) {
            memcpy(member->sign_key, key.data, key.size);
        } else if (key.size > 0 && r.err == E_OK) {
            r.err = E_BAD_MESSAGE;
        }
        m->count++;
    }
    enum grey_error err = codec_end(&r);
    return err != E_OK ? err : raft_members_check(m);
}

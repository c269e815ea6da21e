#include "agent/launch/tar.h"

#include <errno.h>
#include <string.h>

#define BLOCK_BYTES 512u
#define EXTENDED_BYTES_MAX (64u * 1024u) /* a header of pax */
#define SIZE_MAX_TAKEN (UINT64_C(1) << 50)

enum { NAME_AT = 0, MODE_AT = 100, SIZE_AT = 124, SUM_AT = 148, KIND_AT = 156, LINK_AT = 157, MAGIC_AT = 257, PREFIX_AT = 345 };
enum { NAME_BYTES = 100, MODE_BYTES = 8, SIZE_BYTES = 12, SUM_BYTES = 8, PREFIX_BYTES = 155 };

static bool read_all(struct tar *t, uint8_t *out, size_t size) {
    size_t have = 0;
    while (have < size) {
        ssize_t got = t->read(t->context, out + have, size - have);
        if (got <= 0) {
            return false;
        }
        have += (size_t)got;
    }
    return true;
}

static bool number(const uint8_t *at, size_t size, uint64_t *out) {
    *out = 0;
    if ((at[0] & 0x80) != 0) { /* GNU: base 256 */
        for (size_t i = 0; i < size; i++) {
            if (*out >> 55 != 0) {
                return false;
            }
            *out = *out << 8 | (i == 0 ? at[i] & 0x7f : at[i]);
        }
        return true;
    }
    size_t i = 0;
    while (i < size && at[i] == ' ') {
        i++;
    }
    for (; i < size && at[i] >= '0' && at[i] <= '7'; i++) {
        *out = *out << 3 | (uint64_t)(at[i] - '0');
    }
    return i == size || at[i] == 0 || at[i] == ' ';
}

static bool sum_holds(const uint8_t block[BLOCK_BYTES]) {
    uint64_t wanted, sum = 0;
    for (size_t i = 0; i < BLOCK_BYTES; i++) {
        sum += i >= SUM_AT && i < SUM_AT + SUM_BYTES ? ' ' : block[i];
    }
    return number(block + SUM_AT, SUM_BYTES, &wanted) && sum == wanted;
}

static bool put_path(char out[TAR_PATH_BYTES + 1], const uint8_t *head, size_t head_size, const uint8_t *name, size_t size) {
    head_size = strnlen((const char *)head, head_size);
    size = strnlen((const char *)name, size);
    size_t slash = head_size > 0 ? 1 : 0;
    if (head_size + slash + size > TAR_PATH_BYTES) {
        return false;
    }
    memcpy(out, head, head_size);
    memcpy(out + head_size, "/", slash);
    memcpy(out + head_size + slash, name, size);
    out[head_size + slash + size] = 0;
    return true;
}

/* What the entries before one say of it. */
struct extended {
    char path[TAR_PATH_BYTES + 1], link[TAR_PATH_BYTES + 1];
    bool has_path, has_link, has_size;
    uint64_t size;
};

/* Records "LENGTH KEY=VALUE\n". */
static bool read_pax(struct extended *x, const uint8_t *text, size_t size) {
    size_t at = 0;
    while (at < size) {
        size_t length = 0, i = at;
        for (; i < size && text[i] >= '0' && text[i] <= '9' && length < size; i++) {
            length = length * 10 + (size_t)(text[i] - '0');
        }
        if (i == at || i >= size || text[i] != ' ' || length > size - at || length <= i - at + 1 || text[at + length - 1] != '\n') {
            return false;
        }
        const uint8_t *key = text + i + 1, *end = text + at + length - 1;
        const uint8_t *sign = memchr(key, '=', (size_t)(end - key));
        if (sign == NULL) {
            return false;
        }
        size_t key_size = (size_t)(sign - key), value_size = (size_t)(end - sign) - 1;
        bool path = key_size == 4 && memcmp(key, "path", 4) == 0, link = key_size == 8 && memcmp(key, "linkpath", 8) == 0;
        if (path || link) {
            if (!put_path(path ? x->path : x->link, sign, 0, sign + 1, value_size)) {
                return false;
            }
            x->has_path = x->has_path || path;
            x->has_link = x->has_link || link;
        } else if (key_size == 4 && memcmp(key, "size", 4) == 0) {
            x->has_size = true;
            x->size = 0;
            for (size_t k = 0; k < value_size; k++) {
                if (sign[1 + k] < '0' || sign[1 + k] > '9' || x->size > SIZE_MAX_TAKEN) {
                    return false;
                }
                x->size = x->size * 10 + (uint64_t)(sign[1 + k] - '0');
            }
        }
        at += length;
    }
    return true;
}

static bool read_extended(struct tar *t, struct extended *x, uint8_t kind, uint64_t size) {
    size_t whole = (size_t)(size + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    uint8_t *text = size > EXTENDED_BYTES_MAX || size == 0 ? NULL : mem_new(whole, 1);
    bool well = text != NULL && read_all(t, text, whole);
    if (well && kind == 'x') {
        well = read_pax(x, text, (size_t)size);
    } else if (well && kind != 'g') {
        bool path = kind == 'L';
        well = put_path(path ? x->path : x->link, text, 0, text, (size_t)size);
        x->has_path = x->has_path || path;
        x->has_link = x->has_link || !path;
    }
    mem_free(text);
    return well;
}

static enum tar_kind kind_of(uint8_t flag) {
    return flag == 0 || flag == '0' || flag == '7' ? TAR_FILE
           : flag == '1'                           ? TAR_HARD_LINK
           : flag == '2'                           ? TAR_SYMBOLIC_LINK
           : flag == '5'                           ? TAR_FOLDER
                                                   : TAR_OTHER;
}

static bool fill(struct tar *t, struct tar_entry *e, const struct extended *x, const uint8_t block[BLOCK_BYTES], uint64_t size) {
    bool ustar = memcmp(block + MAGIC_AT, "ustar", 6) == 0; /* with its NUL; of GNU there is none, and no prefix */
    uint64_t mode;
    size = x->has_size ? x->size : size;
    e->kind = kind_of(block[KIND_AT]);
    bool well = size <= SIZE_MAX_TAKEN && number(block + MODE_AT, MODE_BYTES, &mode);
    well = well && put_path(e->path, block + PREFIX_AT, ustar ? PREFIX_BYTES : 0, block + NAME_AT, NAME_BYTES) &&
           put_path(e->link, block, 0, block + LINK_AT, NAME_BYTES);
    if (!well) {
        return false;
    }
    if (x->has_path) {
        memcpy(e->path, x->path, sizeof e->path);
    }
    if (x->has_link) {
        memcpy(e->link, x->link, sizeof e->link);
    }
    e->mode = (uint32_t)mode & 07777u;
    e->size = e->kind == TAR_FILE ? size : 0;
    t->left = size;
    t->padding = (BLOCK_BYTES - size % BLOCK_BYTES) % BLOCK_BYTES;
    return true;
}

/* An entry that says something of the next one, or of all. */
static bool is_extended(uint8_t kind) {
    return kind == 'x' || kind == 'g' || kind == 'L' || kind == 'K';
}

/* 1: a header; 0: the end, which is a block of zeros; -1: neither. */
static int read_head(struct tar *t, uint8_t block[BLOCK_BYTES], uint64_t *size) {
    static const uint8_t zeros[BLOCK_BYTES];
    if (!read_all(t, block, BLOCK_BYTES)) {
        return -1;
    }
    if (memcmp(block, zeros, BLOCK_BYTES) == 0) {
        return 0;
    }
    return sum_holds(block) && number(block + SIZE_AT, SIZE_BYTES, size) ? 1 : -1;
}

int tar_next(struct tar *t, struct tar_entry *e) {
    uint8_t block[BLOCK_BYTES];
    uint64_t size = 0;
    struct extended *x = mem_new(1, sizeof *x);
    bool well = x != NULL && (t->left + t->padding == 0 || t->skip(t->context, t->left + t->padding));
    int found = well ? read_head(t, block, &size) : -1;
    t->left = t->padding = 0;
    while (found == 1 && is_extended(block[KIND_AT])) {
        found = read_extended(t, x, block[KIND_AT], size) ? read_head(t, block, &size) : -1;
    }
    if (found == 1 && !fill(t, e, x, block, size)) {
        found = -1;
    }
    mem_free(x);
    if (found < 0) {
        errno = EBADMSG;
    }
    return found;
}

ssize_t tar_read(struct tar *t, uint8_t *out, size_t size) {
    size_t most = size < t->left ? size : (size_t)t->left;
    ssize_t got = most == 0 ? 0 : t->read(t->context, out, most);
    if (got == 0 && most > 0) {
        errno = EBADMSG;
        return -1;
    }
    t->left -= got > 0 ? (uint64_t)got : 0;
    return got;
}

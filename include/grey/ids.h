/* ids.h: what the numbers and names of a site are.  See docs/ARCHITECTURE.md, "Names and numbers". */
#ifndef GREY_IDS_H
#define GREY_IDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "include/grey/limits.h"

typedef uint64_t raft_id;    /* a member's random number, drawn when its data directory is created; 0: none */
typedef uint64_t raft_term;  /* counts elections; 0: before the first */
typedef uint64_t raft_index; /* counts log entries from 1; 0: before the first */
typedef uint64_t grey_epoch; /* fencing token: rises with each leader, stands in every entry, order and uplink frame */
typedef uint64_t grey_seq;   /* counts events of one channel of one site incarnation from 1 */

/* A node id or site id: [A-Za-z0-9._-]{1,64}, NUL terminated. */
struct grey_name {
    char text[LIMIT_NAME_BYTES + 1];
};

/* True when text is a well-formed id of a node or a site. */
static inline bool grey_name_valid(const char *text, size_t size) {
    if (size < 1 || size > LIMIT_NAME_BYTES) {
        return false;
    }
    for (size_t i = 0; i < size; i++) {
        char c = text[i];
        bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        if (!ok) {
            return false;
        }
    }
    return true;
}

#endif

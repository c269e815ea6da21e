#include "agent/store/rowset.h"

#include "include/grey/must.h"

#define ROWSET_BYTES_MAX 67108864u /* 64 MiB */

struct place {
    size_t offset; /* of the key; the value follows */
    uint32_t key_size, value_size;
    raft_index ref;
    enum table_id id;
    bool found;
};

struct sitelog_row_set {
    struct place *places;
    size_t count, capacity;
    struct builder bytes;
};

struct sitelog_row_set *rowset_new(void) {
    struct sitelog_row_set *set = mem_new(1, sizeof *set);
    if (set != NULL) {
        builder_init(&set->bytes, ROWSET_BYTES_MAX);
    }
    return set;
}

void rowset_free(struct sitelog_row_set *set) {
    if (set != NULL) {
        mem_free(set->places);
        builder_free(&set->bytes);
        mem_free(set);
    }
}

enum grey_error rowset_add(struct sitelog_row_set *set, const struct sitelog_row *row) {
    if (set->count == set->capacity) {
        size_t capacity = set->capacity == 0 ? 16 : set->capacity * 2;
        struct place *places = mem_grow(set->places, capacity, sizeof *places);
        if (places == NULL) {
            return E_NO_MEMORY;
        }
        set->places = places;
        set->capacity = capacity;
    }
    set->places[set->count] = (struct place){.offset = set->bytes.size,
                                             .key_size = (uint32_t)row->key.size,
                                             .value_size = (uint32_t)row->value.size,
                                             .ref = row->ref,
                                             .id = row->id,
                                             .found = row->found};
    builder_add(&set->bytes, row->key);
    builder_add(&set->bytes, row->value);
    if (set->bytes.err == E_OK) {
        set->count++;
    }
    return set->bytes.err;
}

size_t sitelog_row_count(const struct sitelog_row_set *set) {
    return set == NULL ? 0 : set->count;
}

void sitelog_row_get(const struct sitelog_row_set *set, size_t i, struct sitelog_row *row) {
    must(i < set->count);
    const struct place *p = &set->places[i];
    const uint8_t *data = set->bytes.data + p->offset;
    *row = (struct sitelog_row){.id = p->id,
                                .key = bytes_of(data, p->key_size),
                                .value = bytes_of(data + p->key_size, p->value_size),
                                .ref = p->ref,
                                .found = p->found};
}

void sitelog_want(struct builder *wants, enum table_id id, struct bytes key) {
    must(key.size <= UINT16_MAX);
    uint8_t head[3] = {(uint8_t)id};
    bytes_put_be16(head + 1, (uint16_t)key.size);
    builder_add(wants, bytes_of(head, sizeof head));
    builder_add(wants, key);
}

bool rowset_want_next(struct bytes *wants, enum table_id *id, struct bytes *key) {
    if (wants->size < 3) {
        return false;
    }
    size_t size = bytes_get_be16(wants->data + 1);
    if (size > wants->size - 3) {
        return false;
    }
    *id = (enum table_id)wants->data[0];
    *key = bytes_of(wants->data + 3, size);
    *wants = bytes_of(wants->data + 3 + size, wants->size - 3 - size);
    return true;
}

#include "platform/zonefile.h"

#include <stdio.h>
#include <string.h>

#include "include/grey/limits.h"

#define NAME_BYTES_MAX 64u
#define FILE_BYTES_MAX (64u * 1024u) /* the largest there is has 4 KiB */
#define FOOTER_BYTES_MAX 256u

/* Letters, digits, '_', '+', '-' and slashes between; so no dots, and nothing outside of the folder. */
static bool is_zone_name(struct bytes name) {
    static const char signs[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+-/";
    for (size_t i = 0; i < name.size; i++) {
        if (name.data[i] == 0 || strchr(signs, name.data[i]) == NULL) {
            return false;
        }
    }
    return name.size > 0 && name.size <= NAME_BYTES_MAX && name.data[0] != '/';
}

static enum grey_error read_file(const char *path, struct builder *out, struct fault *f) {
    uint8_t room[4096];
    size_t got;
    FILE *file = fopen(path, "re");
    if (file == NULL) {
        return fault_set(f, E_NOT_FOUND, "this gateway has no file %.120s; give the rule, such as CET-1CEST,M3.5.0,M10.5.0/3",
                         path);
    }
    while ((got = fread(room, 1, sizeof room, file)) > 0) {
        builder_add(out, bytes_of(room, got));
    }
    bool well = ferror(file) == 0 && out->err == E_OK;
    (void)fclose(file);
    return well ? E_OK : fault_set(f, E_BAD_MESSAGE, "%.120s cannot be read", path);
}

enum grey_error zonefile_rule(const char *folder, struct bytes name, struct builder *out, struct fault *f) {
    char path[LIMIT_PATH_BYTES + 1];
    struct builder text;
    if (!is_zone_name(name)) {
        return fault_set(f, E_BAD_REQUEST, "a time zone has a name such as Europe/Berlin");
    }
    (void)snprintf(path, sizeof path, "%s/%.*s", folder, (int)name.size, (const char *)name.data);
    builder_init(&text, FILE_BYTES_MAX);
    enum grey_error err = read_file(path, &text, f);
    if (err == E_OK) { /* the footer is the last line, between two line feeds */
        size_t end = text.size, start;
        bool well = end > 44 && memcmp(text.data, "TZif", 4) == 0 && text.data[4] >= '2' && text.data[end - 1] == '\n';
        end -= well;
        for (start = end; well && start > 0 && text.data[start - 1] != '\n'; start--) {
        }
        well = well && start > 0 && end > start && end - start <= FOOTER_BYTES_MAX;
        if (well) {
            builder_add(out, bytes_of(text.data + start, end - start));
            err = out->err;
        } else {
            err = fault_set(f, E_BAD_MESSAGE, "%.120s says no rule", path);
        }
    }
    builder_free(&text);
    return err;
}

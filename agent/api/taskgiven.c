#include "agent/api/taskgiven.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum grey_error wrong(struct fault *f, const char *field, const char *wanted) {
    return fault_set(f, E_BAD_REQUEST, "\"%s\" must be %s", field, wanted);
}

static struct bytes text_of(const json_t *value) {
    return bytes_of(json_string_value(value), json_string_length(value));
}

bool taskgiven_knows(const char *field) {
    static const char *const fields[] = {"oci", "files", "artifacts", "isolate"};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        if (strcmp(field, fields[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* --- Images ------------------------------------------------------------------------------------------------------------------------------- */

/* "PATH", {"image": "PATH"} or {"bundle": "PATH"} */
static enum grey_error read_image(json_t *value, struct task_order *o, struct fault *f) {
    if (json_is_object(value) && json_object_size(value) == 1) {
        o->bundle = json_object_get(value, "bundle") != NULL;
        value = json_object_get(value, o->bundle ? "bundle" : "image");
    }
    if (!json_is_string(value)) {
        return wrong(f, "oci", "{\"image\": \"PATH\"} or {\"bundle\": \"PATH\"}");
    }
    o->oci = text_of(value);
    return E_OK;
}

enum grey_error taskgiven_check(const struct task_order *o, struct fault *f) {
    if (o->oci.size > 0 && o->oci.data[0] != '/') {
        return fault_set(f, E_BAD_REQUEST, "oci: \"%.*s\" is no absolute path on the gateway",
                         (int)(o->oci.size > 60 ? 60 : o->oci.size), (const char *)o->oci.data);
    }
    if (o->oci.size > 0 && o->health.probe == PROBE_EXEC) {
        return fault_set(f, E_BAD_REQUEST, "health: exec is asked beside a task, not inside its image; use http or tcp");
    }
    return E_OK;
}

/* --- Files ---------------------------------------------------------------------------------------------------------------------------------- */

/* "0755": as chmod takes it. */
static enum grey_error read_mode(const json_t *value, struct task_file *file, struct fault *f) {
    const char *text = json_string_value(value);
    char *end = NULL;
    unsigned long mode = text == NULL ? 0 : strtoul(text, &end, 8);
    if (text == NULL || end == text || *end != 0 || mode > 0777) {
        return wrong(f, "mode", "octal permissions in quotes, like \"0755\"");
    }
    file->mode = (uint32_t)mode;
    return E_OK;
}

static enum grey_error read_source(const json_t *value, enum task_file_source source, const char *field, unsigned *sources,
                                   struct task_file *file, struct fault *f) {
    file->source = source;
    file->text = text_of(value);
    *sources += 1;
    return json_is_string(value) ? E_OK : wrong(f, field, "a string");
}

static enum grey_error read_hash(const json_t *value, uint8_t *hash, struct task_file *file, struct fault *f) {
    struct bytes text = text_of(value);
    if (!json_is_string(value) || text.size != 2 * TASK_HASH_BYTES ||
        !bytes_unhex((const char *)text.data, TASK_HASH_BYTES, hash)) {
        return wrong(f, "sha256", "64 hexadecimal digits");
    }
    file->hash = bytes_of(hash, TASK_HASH_BYTES);
    return E_OK;
}

static enum grey_error read_file(json_t *value, bool artifact, uint8_t *hash, struct task_file *file, struct fault *f) {
    const char *field = artifact ? "artifacts" : "files", *name;
    json_t *member;
    unsigned sources = 0;
    enum grey_error err = json_is_object(value) ? E_OK : wrong(f, field, "an array of objects");
    *file = (struct task_file){.mode = TASK_FILE_MODE_DEFAULT};
    json_object_foreach(value, name, member) {
        if (err != E_OK) {
            return err;
        }
        if (strcmp(name, "name") == 0) {
            file->name = text_of(member);
        } else if (strcmp(name, "mode") == 0) {
            err = read_mode(member, file, f);
        } else if (!artifact && strcmp(name, "text") == 0) {
            err = read_source(member, FILE_TEXT, name, &sources, file, f);
        } else if (artifact && strcmp(name, "sha256") == 0) {
            err = read_hash(member, hash, file, f);
        } else if (artifact && strcmp(name, "path") == 0) {
            err = read_source(member, FILE_PATH, name, &sources, file, f);
        } else if (artifact && strcmp(name, "object") == 0) {
            err = read_source(member, FILE_OBJECT, name, &sources, file, f);
        } else {
            err = fault_set(f, E_BAD_REQUEST, "%s: an item has no field \"%s\"; see docs/openapi.yaml", field, name);
        }
    }
    if (err == E_OK && sources != 1) {
        err = fault_set(f, E_BAD_REQUEST, artifact ? "artifacts: an item has a path or an object" : "files: an item has a text");
    }
    if (err == E_OK && file->name.size == 0 && artifact) { /* as it is called where it comes from */
        const uint8_t *slash = file->text.size == 0 ? NULL : memrchr(file->text.data, '/', file->text.size);
        size_t head = slash == NULL ? 0 : (size_t)(slash - file->text.data) + 1;
        file->name = bytes_of(file->text.data + head, file->text.size - head);
    }
    return err;
}

static enum grey_error read_files(const char *field, json_t *value, uint8_t hashes[TASK_FILES_MAX][TASK_HASH_BYTES],
                                  struct task_order *o, struct fault *f) {
    bool artifact = strcmp(field, "artifacts") == 0;
    if (!json_is_array(value) || json_array_size(value) > TASK_FILES_MAX - o->file_count) {
        return fault_set(f, E_BAD_REQUEST, "\"%s\" must be an array; files and artifacts are %u at most", field, TASK_FILES_MAX);
    }
    enum grey_error err = E_OK;
    for (size_t i = 0; err == E_OK && i < json_array_size(value); i++) {
        err = read_file(json_array_get(value, i), artifact, hashes[o->file_count], &o->files[o->file_count], f);
        o->file_count++;
    }
    return err;
}

/* --- Namespaces ------------------------------------------------------------------------------------------------------------------------------- */

static enum grey_error read_isolate(json_t *value, struct task_order *o, struct fault *f) {
    static const char wanted[] = "an object of \"network\" (none or host), \"mount\" and \"pid\" (true or false)";
    const char *name;
    json_t *member;
    o->isolate = 0;
    if (!json_is_object(value)) {
        return wrong(f, "isolate", wanted);
    }
    json_object_foreach(value, name, member) {
        uint32_t bit = strcmp(name, "mount") == 0 ? TASK_ISOLATE_MOUNT : strcmp(name, "pid") == 0 ? TASK_ISOLATE_PID : 0;
        const char *network = strcmp(name, "network") == 0 ? json_string_value(member) : NULL;
        if (network != NULL && strcmp(network, "none") == 0) {
            o->isolate |= TASK_ISOLATE_NETWORK;
        } else if (bit != 0 && json_is_true(member)) {
            o->isolate |= bit;
        } else if (!(network != NULL && strcmp(network, "host") == 0) && !(bit != 0 && json_is_false(member))) {
            return wrong(f, "isolate", wanted);
        }
    }
    return E_OK;
}

enum grey_error taskgiven_read(const char *field, json_t *value, uint8_t hashes[TASK_FILES_MAX][TASK_HASH_BYTES],
                               struct task_order *o, struct fault *f) {
    return strcmp(field, "oci") == 0       ? read_image(value, o, f)
           : strcmp(field, "isolate") == 0 ? read_isolate(value, o, f)
                                           : read_files(field, value, hashes, o, f);
}

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "agent/config/config_core.h"

static void put_value(const struct config *c, const struct config_key *k, struct builder *out) {
    const uint8_t *at = (const uint8_t *)c + k->at;
    int64_t integer;
    bool truth;
    switch (k->kind) {
    case KIND_INT:
        memcpy(&integer, at, sizeof integer);
        builder_addf(out, "%" PRId64, integer);
        return;
    case KIND_MILLI:
        memcpy(&integer, at, sizeof integer);
        builder_addf(out, "%" PRId64 ".%03" PRId64, integer / 1000, integer % 1000);
        return;
    case KIND_BOOL:
        memcpy(&truth, at, sizeof truth);
        builder_add_str(out, truth ? "true" : "false");
        return;
    case KIND_LIST:
        for (uint32_t i = 0; i < c->endpoint_count; i++) {
            builder_addf(out, "%s%s", i > 0 ? ", " : "", c->endpoints[i]);
        }
        return;
    case KIND_CLASSES:
        builder_addf(out, "control-plane, critical-events%s%s", c->privileged[CHANNEL_EVENTS] ? ", events" : "",
                     c->privileged[CHANNEL_DATA] ? ", data" : "");
        return;
    case KIND_WINDOWS:
        for (uint32_t i = 0; i < c->window_count; i++) {
            builder_addf(out, "%s\"%s\"", i > 0 ? ", " : "", c->window_texts[i]);
        }
        return;
    case KIND_TIMES:
        for (uint32_t i = 0; i < c->time_count; i++) {
            uint64_t milli = (uint64_t)c->times[i].seconds * 1000 / 3600;
            builder_addf(out, "%s%s: %" PRIu64 ".%03" PRIu64 " h", i > 0 ? ", " : "", c->times[i].type, milli / 1000, milli % 1000);
        }
        return;
    case KIND_RANKS:
        for (uint32_t i = 0; i < c->priority_count; i++) {
            builder_addf(out, "%s%u", i > 0 ? ", " : "", c->priorities[i]);
        }
        return;
    case KIND_WORD:
        builder_add_str(out, k->at == offsetof(struct config, mode) ? config_mode_words[c->mode] : (const char *)at);
        return;
    case KIND_INERT:
        return;
    default:
        builder_addf(out, "\"%s\"", (const char *)at);
    }
}

static const char *origin_name(const struct config *c, size_t i, char text[LIMIT_PATH_BYTES + 32]) {
    switch ((enum config_origin)c->origin[i]) {
    case FROM_PROFILE:
    case FROM_FILE:
        (void)snprintf(text, LIMIT_PATH_BYTES + 32, "%s:%u", c->origin[i] == FROM_FILE ? c->file : c->profile, c->origin_line[i]);
        return text;
    case FROM_ENVIRONMENT:
        return config_keys[i].environment;
    case FROM_FLAG:
        (void)snprintf(text, LIMIT_PATH_BYTES + 32, "--%s", config_keys[i].flag);
        return text;
    default:
        return "default";
    }
}

static const char *key_name(const struct config_key *k) {
    return k->path[0] != 0 ? k->path : k->flag;
}

void config_print(const struct config *c, struct builder *out) {
    char text[LIMIT_PATH_BYTES + 32];
    for (size_t i = 0; i < config_key_count; i++) {
        if (config_keys[i].kind != KIND_INERT && config_keys[i].fallback != NULL) {
            size_t before = out->size;
            builder_addf(out, "%s: ", key_name(&config_keys[i]));
            put_value(c, &config_keys[i], out);
            size_t used = out->size - before;
            builder_addf(out, "%*s # %s\n", used < 56 ? (int)(56 - used) : 1, "", origin_name(c, i, text));
        }
    }
}

void config_list_inert(const struct config *c, struct builder *out) {
    for (size_t i = 0; i < config_key_count; i++) {
        if ((c->origin[i] == FROM_FILE || c->origin[i] == FROM_PROFILE) &&
            (config_keys[i].kind == KIND_INERT || (c->auth && config_keys[i].at == offsetof(struct config, auth)))) {
            char text[LIMIT_PATH_BYTES + 32];
            builder_addf(out, "%s: %s is known, and without effect in this version\n", origin_name(c, i, text),
                         config_keys[i].path);
        }
    }
}

void config_document(struct builder *out) {
    builder_add_str(out, "| key | flag | environment | default | range | meaning |\n|---|---|---|---|---|---|\n");
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *k = &config_keys[i];
        builder_addf(out, "| %s%s%s |", k->path[0] != 0 ? "`" : "", k->path, k->path[0] != 0 ? "`" : "");
        builder_addf(out, " %s%s%s |", k->flag != NULL ? "`--" : "", k->flag != NULL ? k->flag : "", k->flag != NULL ? "`" : "");
        builder_addf(out, " %s%s%s |", k->environment != NULL ? "`" : "", k->environment != NULL ? k->environment : "",
                     k->environment != NULL ? "`" : "");
        builder_addf(out, " %s |", k->fallback == NULL ? "" : k->fallback);
        if (k->kind == KIND_INT) {
            builder_addf(out, " %" PRId64 " to %" PRId64 " |", k->min, k->max);
        } else if (k->kind == KIND_MILLI) {
            builder_addf(out, " %" PRId64 " to %" PRId64 " |", k->min / 1000, k->max / 1000);
        } else if (k->kind == KIND_WORD) {
            builder_add_byte(out, ' ');
            for (const char *w = k->words; *w != 0; w++) {
                builder_add_str(out, *w == '|' ? ", " : (char[]){*w, 0});
            }
            builder_add_str(out, " |");
        } else {
            builder_add_str(out, k->kind == KIND_BOOL ? " true, false |" : k->kind == KIND_INERT ? " (no effect yet) |" : " |");
        }
        builder_addf(out, " %s |\n", k->meaning);
    }
}

void config_help(struct builder *out) {
    builder_add_str(out, "greyd: the agent on a gateway of a Grey Edge site\n\n"
                         "usage: greyd [--config FILE] [flags]\n"
                         "       greyd --check-config [--print] [--config FILE] [flags]\n"
                         "       greyd restore --snapshot FILE --data-dir DIR\n"
                         "       greyd enroll --core https://HOST:PORT --token TOKEN    greyd enroll --help says more\n\n"
                         "Flags win over environment variables, these over the file, the file over defaults.\n\n");
    for (size_t i = 0; i < config_option_count; i++) {
        char left[48];
        (void)snprintf(left, sizeof left, "--%s%s%s", config_options[i].name, config_options[i].argument != NULL ? " " : "",
                       config_options[i].argument != NULL ? config_options[i].argument : "");
        builder_addf(out, "  %-24s %s\n", left, config_options[i].meaning);
    }
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->flag == NULL) {
            continue;
        }
        char left[64];
        (void)snprintf(left, sizeof left, "--%s%s", k->flag, k->kind == KIND_BOOL ? "" : k->kind == KIND_INT ? " N" : " TEXT");
        builder_addf(out, "  %-24s %s", left, k->meaning);
        if (k->environment != NULL) {
            builder_addf(out, " [$%s]", k->environment);
        }
        builder_add_byte(out, '\n');
    }
    builder_add_str(out, "\nAll keys of the file: docs/CONFIGURATION.md, man 5 greyd.yaml.\nExit codes: 0; 1 failed while running; "
                         "2 usage or configuration.\n");
}

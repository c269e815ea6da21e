#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/config/config_core.h"
#include "federation/shaper.h"
#include "include/grey/must.h"
#include "platform/address.h"

/* text: not empty, and within a limit of length; several are told apart by commas. */
static enum grey_error check_addresses(struct bytes text, bool several, struct fault *f) {
    size_t at = 0;
    while (at <= text.size) {
        char one[LIMIT_ADDRESS_BYTES + 1], host[ADDRESS_HOST_BYTES], port[ADDRESS_PORT_BYTES];
        const uint8_t *comma = several && at < text.size ? memchr(text.data + at, ',', text.size - at) : NULL;
        size_t size = comma == NULL ? text.size - at : (size_t)(comma - text.data) - at;
        memcpy(one, text.data + at, size < sizeof one ? size : 0);
        one[size < sizeof one ? size : 0] = 0;
        if (!(address_is_unix(one) && !several) && address_split(one, host, port, f) != E_OK) {
            return fault_set(f, E_CONFIG, "'%.*s' is no address: expected host:port, such as 127.0.0.1:8080",
                             (int)(size > 80 ? 80 : size), (const char *)text.data + at);
        }
        at += size + 1;
    }
    return E_OK;
}

static enum grey_error set_text(struct config *c, const struct config_key *k, struct bytes text, struct fault *f) {
    uint8_t *at = (uint8_t *)c + k->at;
    if (k->kind == KIND_NAME && !grey_name_valid((const char *)text.data, text.size)) {
        return fault_set(f, E_CONFIG, "'%.*s' is no name: 1 to 64 letters, digits, '.', '_' or '-'",
                         (int)(text.size > 80 ? 80 : text.size), (const char *)text.data);
    }
    if (text.size == 0 && (k->fallback == NULL || k->fallback[0] != 0)) {
        return fault_set(f, E_CONFIG, "must not be empty");
    }
    if (text.size >= k->size || (text.size > 0 && memchr(text.data, 0, text.size) != NULL)) {
        return fault_set(f, E_CONFIG, "longer than %zu bytes", k->size - 1);
    }
    if (text.size > 0 && (k->kind == KIND_ADDRESS || k->kind == KIND_ADDRESSES)) {
        enum grey_error err = check_addresses(text, k->kind == KIND_ADDRESSES, f);
        if (err != E_OK) {
            return err;
        }
    }
    memset(at, 0, k->size);
    if (text.size > 0) {
        memcpy(at, text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_word(struct config *c, const struct config_key *k, struct bytes text, struct fault *f) {
    const char *words = k->words;
    while (*words != 0) {
        size_t size = strcspn(words, "|");
        if (text.size == size && memcmp(words, text.data, size) == 0) {
            if (k->at != offsetof(struct config, mode)) {
                return set_text(c, k, text, f);
            }
            for (int m = 0; m < 5; m++) {
                if (bytes_equal_str(text, config_mode_words[m])) {
                    c->mode = m == 4 ? CONFIG_MODE_SINGLE : (enum config_mode)m;
                }
            }
            return E_OK;
        }
        words += size + (words[size] == '|');
    }
    return fault_set(f, E_CONFIG, "'%.*s' is not one of %s", (int)(text.size > 80 ? 80 : text.size), (const char *)text.data,
                     k->words);
}

static void set_int(struct config *c, const struct config_key *k, int64_t v) {
    memcpy((uint8_t *)c + k->at, &v, sizeof v);
}

static void set_bool(struct config *c, const struct config_key *k, bool v) {
    memcpy((uint8_t *)c + k->at, &v, sizeof v);
}

static enum grey_error set_endpoints(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->endpoint_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        if (c->endpoint_count == CONFIG_ENDPOINTS_MAX || text.size > LIMIT_ADDRESS_BYTES || text.size == 0 ||
            check_addresses(text, false, NULL) != E_OK) {
            return yaml_fault(e, f, "expected at most %u addresses as host:port", CONFIG_ENDPOINTS_MAX);
        }
        memset(c->endpoints[c->endpoint_count], 0, sizeof c->endpoints[0]);
        memcpy(c->endpoints[c->endpoint_count++], text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_times(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->time_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        const struct yaml_node *type = yaml_get(e, "type"), *hours = yaml_get(e, "hours");
        struct bytes text;
        double number;
        if (type == NULL || hours == NULL || e->count != 2) {
            return yaml_fault(e, f, "expected type and hours");
        }
        enum grey_error err = yaml_text(type, &text, f);
        err = err != E_OK ? err : yaml_number(hours, 1.0 / 60, 87600, &number, f);
        if (err != E_OK) {
            return err;
        }
        if (c->time_count == LIMIT_QUEUE_TTLS || text.size == 0 || text.size > LIMIT_TYPE_PATTERN_BYTES ||
            memchr(text.data, 0, text.size) != NULL) {
            return yaml_fault(e, f, "expected at most %u types of 1 to %u bytes", LIMIT_QUEUE_TTLS, LIMIT_TYPE_PATTERN_BYTES);
        }
        memset(&c->times[c->time_count], 0, sizeof c->times[0]);
        memcpy(c->times[c->time_count].type, text.data, text.size);
        c->times[c->time_count++].seconds = (uint32_t)(number * 3600 + 0.5);
    }
    return E_OK;
}

static enum grey_error set_ranks(struct config *c, const struct config_key *k, const struct yaml_node *n, struct fault *f) {
    c->priority_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        int64_t rank;
        enum grey_error err = yaml_int(e, k->min, k->max, &rank, f);
        if (err != E_OK) {
            return err;
        }
        if (c->priority_count == CONFIG_ENDPOINTS_MAX) {
            return yaml_fault(e, f, "expected at most %u numbers", CONFIG_ENDPOINTS_MAX);
        }
        c->priorities[c->priority_count++] = (uint32_t)rank;
    }
    return E_OK;
}

static enum grey_error set_classes(struct config *c, const struct yaml_node *n, struct fault *f) {
    static const char *const words[] = {"control-plane", "critical-events", "events", "data"};
    static const enum event_channel meant[] = {CHANNEL_CONTROL, CHANNEL_CONTROL, CHANNEL_EVENTS, CHANNEL_DATA};
    memset(c->privileged, 0, sizeof c->privileged);
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        size_t i = 0;
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        while (i < sizeof words / sizeof words[0] && !bytes_equal_str(text, words[i])) {
            i++;
        }
        if (i == sizeof words / sizeof words[0]) {
            return yaml_fault(e, f, "expected control-plane, critical-events, events or data");
        }
        c->privileged[meant[i]] = true;
    }
    return E_OK;
}

static enum grey_error set_windows(struct config *c, const struct yaml_node *n, struct fault *f) {
    c->window_count = 0;
    for (const struct yaml_node *e = n->first; e != NULL; e = e->next) {
        struct bytes text;
        struct fault inner = {0};
        enum grey_error err = yaml_text(e, &text, f);
        if (err != E_OK) {
            return err;
        }
        if (c->window_count == WINDOWS_MAX || text.size > WINDOW_TEXT_BYTES || memchr(text.data, 0, text.size) != NULL) {
            return yaml_fault(e, f, "expected at most %u windows of %u characters", WINDOWS_MAX, WINDOW_TEXT_BYTES);
        }
        if (window_parse(&c->windows[c->window_count], text, &inner) != E_OK) {
            return yaml_fault(e, f, "%.180s", inner.text);
        }
        memset(c->window_texts[c->window_count], 0, sizeof c->window_texts[0]);
        memcpy(c->window_texts[c->window_count++], text.data, text.size);
    }
    return E_OK;
}

static enum grey_error set_list(struct config *c, const struct config_key *k, const struct yaml_node *n, struct fault *f) {
    static const char *const of[] = {"addresses", "types and hours", "numbers", "classes of traffic", "windows"};
    if (n->kind != YAML_SEQUENCE) {
        return yaml_fault(n, f, "expected a list of %s", of[k->kind - KIND_LIST]);
    }
    return k->kind == KIND_LIST      ? set_endpoints(c, n, f)
           : k->kind == KIND_TIMES   ? set_times(c, n, f)
           : k->kind == KIND_RANKS   ? set_ranks(c, k, n, f)
           : k->kind == KIND_CLASSES ? set_classes(c, n, f)
                                     : set_windows(c, n, f);
}

enum grey_error config_set_from_yaml(struct config *c, const struct config_key *k, const struct yaml_node *n, struct fault *f) {
    struct bytes text;
    int64_t integer;
    double number;
    bool truth;
    enum grey_error err = E_OK;
    if (k->kind == KIND_INERT) {
        return E_OK;
    }
    if (config_is_list(k)) {
        return set_list(c, k, n, f);
    }
    if (n->kind != YAML_SCALAR) {
        return yaml_fault(n, f, "%s: expected one value", k->path);
    }
    switch (k->kind) {
    case KIND_INT:
        err = yaml_int(n, k->min, k->max, &integer, f);
        if (err == E_OK) {
            set_int(c, k, integer);
        }
        return err;
    case KIND_MILLI:
        err = yaml_number(n, (double)k->min / 1000, (double)k->max / 1000, &number, f);
        if (err == E_OK) {
            set_int(c, k, (int64_t)(number * 1000 + 0.5));
        }
        return err;
    case KIND_BOOL:
        err = yaml_bool(n, &truth, f);
        if (err == E_OK) {
            set_bool(c, k, truth);
        }
        return err;
    default: {
        struct fault inner = {0};
        err = yaml_text(n, &text, f);
        if (err == E_OK) {
            err = k->kind == KIND_WORD ? set_word(c, k, text, &inner) : set_text(c, k, text, &inner);
            if (err != E_OK) {
                return yaml_fault(n, f, "%s: %.180s", k->path, inner.text);
            }
        }
        return err;
    }
    }
}

enum grey_error config_set_from_string(struct config *c, const struct config_key *k, const char *text, const char *what,
                                       struct fault *f) {
    struct fault inner = {0};
    enum grey_error err = E_OK;
    char *end;
    switch (k->kind) {
    case KIND_BOOL:
        if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0) {
            return fault_set(f, E_USAGE, "%s: '%.80s' is neither true nor false", what, text);
        }
        set_bool(c, k, text[0] == 't');
        return E_OK;
    case KIND_INT: {
        long long v = strtoll(text, &end, 10);
        if (text[0] == 0 || *end != 0 || v < k->min || v > k->max) {
            return fault_set(f, E_USAGE, "%s: '%.80s' is no number from %" PRId64 " to %" PRId64, what, text, k->min, k->max);
        }
        set_int(c, k, v);
        return E_OK;
    }
    case KIND_WORD:
        err = set_word(c, k, bytes_str(text), &inner);
        break;
    default:
        err = set_text(c, k, bytes_str(text), &inner);
        break;
    }
    return err == E_OK ? E_OK : fault_set(f, E_USAGE, "%s: %.200s", what, inner.text);
}

void config_defaults(struct config *c) {
    memset(c, 0, sizeof *c);
    for (size_t i = 0; i < config_key_count; i++) {
        const struct config_key *k = &config_keys[i];
        if (k->fallback == NULL || config_is_list(k) || k->kind == KIND_INERT || (k->kind == KIND_NAME && k->fallback[0] == 0)) {
            continue;
        }
        if (k->kind == KIND_MILLI) {
            set_int(c, k, strtoll(k->fallback, NULL, 10) * 1000);
        } else {
            must(config_set_from_string(c, k, k->fallback, "default", NULL) == E_OK);
        }
    }
}

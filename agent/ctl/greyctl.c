/* greyctl: looks at and commands a Grey Edge site.  Reads the command line, finds the verb in the table, runs it. */
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agent/ctl/verbs.h"
#include "include/grey/must.h"

#define WORDS_MAX 64

struct line {
    const char *words[WORDS_MAX]; /* what is no option, in order */
    unsigned word_count;
    const char *names[WORDS_MAX], *values[WORDS_MAX]; /* options that are not global; value NULL: none was joined with '=' */
    unsigned option_count;
    bool help;
};

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));

static int usage(const char *format, ...) {
    va_list args;
    (void)fputs("greyctl: ", stderr);
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fputs("\n  -> greyctl --help lists verbs and options\n", stderr);
    return CTL_USAGE;
}

/* --- options ------------------------------------------------------------------------------------------------------------------------------ */

static bool set_global(struct call *c, struct line *l, const char *name, const char *value) {
    char *end;

    if (value == NULL) { /* --help is the only one that takes none */
        l->help = true;
    } else if (strcmp(name, "addr") == 0) {
        c->client.address[CLIENT_NODE] = value;
    } else if (strcmp(name, "core") == 0) {
        c->client.address[CLIENT_CORE] = value;
    } else if (strcmp(name, "profile") == 0) {
        c->client.profile_name = value;
    } else if (strcmp(name, "cacert") == 0) {
        c->client.ca_path = value;
    } else if (strcmp(name, "timeout") == 0) {
        unsigned long seconds = strtoul(value, &end, 10);
        if (value[0] < '0' || value[0] > '9' || *end != 0 || seconds < 1 || seconds > 86400) {
            (void)usage("--timeout '%.40s': expected seconds from 1 to 86400", value);
            return false;
        }
        c->client.timeout_ms = (uint32_t)seconds * 1000u;
    } else {
        static const char *const words[] = {"table", "wide", "json"};
        static const enum verb_output outputs[] = {OUTPUT_TABLE, OUTPUT_WIDE, OUTPUT_JSON};
        for (int i = 0; i < 3; i++) {
            if (strcmp(value, words[i]) == 0) {
                c->output = outputs[i];
                return true;
            }
        }
        (void)usage("--output '%.40s': expected table, json or wide", value);
        return false;
    }
    return true;
}

static const struct verb_option *find_option(const struct verb_option *options, size_t count, const char *name, size_t size) {
    for (size_t i = 0; i < count && options[i].name != NULL; i++) {
        if (strlen(options[i].name) == size && memcmp(options[i].name, name, size) == 0) {
            return &options[i];
        }
    }
    return NULL;
}

/* The verb decides which of its options take a value, so it must be known before they are read: words are gathered first, and an
 * option of its own may only follow the verb.  Global options may stand anywhere. */
static const struct verb *verb_so_far(const struct line *l, unsigned *used) {
    return verbs_find(l->words, l->word_count, used);
}

static int read_option(struct call *c, struct line *l, int argc, char **argv, int *i) {
    const char *text = argv[*i];
    const char *name = strcmp(text, "-h") == 0       ? "help"
                       : strcmp(text, "-f") == 0     ? "file"
                       : strncmp(text, "-o", 2) == 0 ? "output"
                                                     : text + 2;
    bool joined_short = strncmp(text, "-o", 2) == 0 && text[2] != 0;
    size_t size = strcspn(name, "=");
    const char *value = joined_short ? text + 2 + (text[2] == '=') : name[size] == '=' ? name + size + 1 : NULL;
    if (text[0] == '-' && text[1] != '-' && strcmp(text, "-h") != 0 && strcmp(text, "-f") != 0 && strncmp(text, "-o", 2) != 0) {
        return usage("unknown option '%.60s'", text);
    }
    unsigned used;
    const struct verb_option *o = find_option(verbs_global, verbs_global_count, name, size);
    bool global = o != NULL;
    const struct verb *v = verb_so_far(l, &used);
    if (o == NULL && v != NULL) {
        o = find_option(v->options, VERB_OPTIONS_MAX, name, size);
    }
    if (o == NULL && l->word_count == 0 && strcmp(text, "--version") == 0) {
        l->words[l->word_count++] = "version";
        return CTL_OK;
    }
    if (o == NULL && v != NULL && v->run == NULL) {
        return CTL_OK; /* whatever it will mean in a later version */
    }
    if (o == NULL) {
        return v != NULL ? usage("this verb has no option '%.60s'", text) : usage("unknown option '%.60s'", text);
    }
    if (o->value != NULL && value == NULL) {
        if (*i + 1 >= argc) {
            return usage("%.60s wants a value", text);
        }
        value = argv[++*i];
    } else if (o->value == NULL && value != NULL) {
        return usage("%.60s takes no value", text);
    }
    if (global) {
        return set_global(c, l, o->name, value) ? CTL_OK : CTL_USAGE;
    }
    if (l->option_count == WORDS_MAX) {
        return usage("too many options at '%.60s'", text);
    }
    l->names[l->option_count] = o->name;
    l->values[l->option_count++] = value != NULL ? value : "";
    return CTL_OK;
}

static int read_line(struct call *c, struct line *l, int argc, char **argv) {
    bool options_end = false;
    for (int i = 1; i < argc; i++) {
        if (!options_end && strcmp(argv[i], "--") == 0) {
            options_end = true;
        } else if (!options_end && argv[i][0] == '-' && argv[i][1] != 0) {
            int code = read_option(c, l, argc, argv, &i);
            if (code != CTL_OK) {
                return code;
            }
        } else if (l->word_count == WORDS_MAX) {
            return usage("too many words at '%.60s'", argv[i]);
        } else {
            l->words[l->word_count++] = argv[i];
        }
    }
    return CTL_OK;
}

/* --- the verb ------------------------------------------------------------------------------------------------------------------------------ */

static int no_such_verb(const struct line *l) {
    char text[128];
    struct builder out;
    if (verbs_is_group(l->words[0])) {
        builder_init(&out, 64u * 1024u);
        help_group(l->words[0], &out);
        (void)fwrite(out.data, 1, out.size, l->help ? stdout : stderr);
        builder_free(&out);
        return l->help ? CTL_OK : CTL_USAGE;
    }
    (void)snprintf(text, sizeof text, "%.60s%s%.60s", l->words[0], l->word_count > 1 ? " " : "",
                   l->word_count > 1 ? l->words[1] : "");
    const char *near = verbs_nearest(l->words[0]), *near_both = verbs_nearest(text);
    (void)fprintf(stderr, "greyctl: there is no verb '%s'; the nearest one is '%s'\n  -> greyctl --help lists them all\n",
                  l->words[0], l->word_count > 1 ? near_both : near);
    return CTL_USAGE;
}

static int run(struct call *c, const struct line *l) {
    struct builder out;
    unsigned used = 0;
    if (l->word_count == 0 && l->help) {
        builder_init(&out, 256u * 1024u);
        help_all(&out);
        return verbs_print(&out);
    }
    const char *const just_status[] = {"status"};
    c->verb = l->word_count == 0 ? verbs_find(just_status, 1, &used) : verbs_find(l->words, l->word_count, &used);
    if (l->word_count == 0) {
        used = 0;
    }
    if (c->verb == NULL) {
        must(l->words[0] != NULL); /* "status" itself is in the table */
        return no_such_verb(l);
    }
    if (l->help) {
        builder_init(&out, 256u * 1024u);
        help_verb(c->verb, &out);
        return verbs_print(&out);
    }
    if (c->verb->run == NULL) {
        (void)fprintf(stderr, "greyctl: '%s' is not in this version\n  -> greyctl --help lists what is\n", c->verb->name);
        return CTL_USAGE;
    }
    c->arg_count = l->word_count - used;
    if (c->arg_count < c->verb->args_min || c->arg_count > c->verb->args_max) {
        (void)fprintf(stderr, "greyctl: usage: greyctl %s%s%s\n  -> greyctl help %s says more\n", c->verb->name,
                      c->verb->args[0] != 0 ? " " : "", c->verb->args, c->verb->name);
        return CTL_USAGE;
    }
    for (unsigned i = 0; i < c->arg_count; i++) {
        c->args[i] = l->words[used + i];
    }
    for (unsigned i = 0; i < l->option_count; i++) {
        const struct verb_option *o = find_option(c->verb->options, VERB_OPTIONS_MAX, l->names[i], strlen(l->names[i]));
        if (o == NULL) { /* the words after it made another verb */
            return usage("this verb has no option '--%.60s'", l->names[i]);
        }
        c->options[o - c->verb->options] = l->values[i];
    }
    return c->verb->run(c);
}

static bool want_colour(void) {
    const char *no = getenv("NO_COLOR"), *term = getenv("TERM");
    return isatty(STDOUT_FILENO) && (no == NULL || no[0] == 0) && (term == NULL || strcmp(term, "dumb") != 0);
}

int main(int argc, char **argv) {
    struct call c = {.client = {.timeout_ms = CLIENT_TIMEOUT_MS}, .colour = want_colour()};
    struct line l = {.word_count = 0};
    (void)signal(SIGPIPE, SIG_DFL); /* as other tools in a pipeline */
    int code = read_line(&c, &l, argc, argv);
    code = code != CTL_OK ? code : run(&c, &l);
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        (void)fputs("greyctl: not all of the answer could be written\n  -> see that there is room where stdout goes\n", stderr);
        code = code == CTL_OK ? CTL_FAILED : code;
    }
    return code;
}

/* Verbs that need no node: errors explained, configuration files, completion, help, version. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/wait.h>
#include <unistd.h>

#include "agent/ctl/verbs.h"

#define CONFIG_FILE "/etc/grey/greyd.yaml"

/* --- explain ----------------------------------------------------------------------------------------------------------------------------- */

static void put_error(struct builder *out, enum grey_error e) {
    builder_addf(out, "GREY-%d  %s (%s)\n\nwhat to do   %s\n", error_id(e), error_sentence(e), error_name(e), error_remedy(e));
    if (error_http_status(e) != 500 || e == E_SYSTEM || e == E_BUG) {
        builder_addf(out, "HTTP status  %d\n", error_http_status(e));
    }
    builder_add_str(out, "more         docs/ERRORS.md\n");
}

static enum grey_error error_named(const char *text) {
    if (strncasecmp(text, "GREY-", 5) == 0) {
        text += 5;
    }
    char *end;
    long id = strtol(text, &end, 10);
    if (text[0] != 0 && *end == 0 && id > 0 && id < 100000) {
        return error_by_id((int)id);
    }
    for (int e = 1; e < GREY_ERROR_COUNT; e++) {
        if (strcasecmp(text, error_name((enum grey_error)e)) == 0) {
            return (enum grey_error)e;
        }
    }
    return E_OK;
}

int local_explain(struct call *c) {
    static const char *const titles[] = {"ERROR", "MEANING", "WHAT TO DO"};
    struct builder out;
    struct render_table t;
    builder_init(&out, 256u * 1024u);
    if (c->arg_count > 0) {
        enum grey_error e = error_named(c->args[0]);
        if (e == E_OK) {
            builder_free(&out);
            (void)fprintf(stderr, "greyctl: there is no error '%.60s'\n  -> greyctl explain lists them all\n", c->args[0]);
            return CTL_USAGE;
        }
        put_error(&out, e);
        return verbs_print(&out);
    }
    render_table_begin(&t, titles, 3);
    for (int e = 1; e < GREY_ERROR_COUNT; e++) {
        render_cellf(&t, "GREY-%d", error_id((enum grey_error)e));
        render_cell(&t, error_sentence((enum grey_error)e));
        render_cell(&t, error_remedy((enum grey_error)e));
    }
    render_table_end(&t, &out);
    return verbs_print(&out);
}

/* --- configuration: greyd reads and judges it, so greyd is asked ---------------------------------------------------------------------- */

/* Becomes greyd, the one beside this program or else the one in $PATH. */
static int become_greyd(const char *const *argv) {
    char own[1024];
    ssize_t size = readlink("/proc/self/exe", own, sizeof own - sizeof "greyd");
    if (size > 0) {
        own[size] = 0;
        char *slash = strrchr(own, '/');
        if (slash != NULL) {
            memcpy(slash + 1, "greyd", sizeof "greyd");
            (void)execv(own, (char *const *)(void *)argv);
        }
    }
    (void)execvp("greyd", (char *const *)(void *)argv);
    (void)fprintf(stderr,
                  "greyctl: greyd cannot be run: %s\n  -> greyd judges its configuration itself; install it on this machine\n",
                  strerror(errno));
    return CTL_FAILED;
}

int local_config_show(struct call *c) {
    const char *file = verbs_option(c, "config"), *origin = verbs_option(c, "origin");
    const char *argv[] = {"greyd", "--check-config", "--print", file == NULL ? NULL : "--config", file, NULL}; /* else its own */
    if (origin != NULL) {
        return become_greyd(argv);
    }
    /* The same without the remarks behind each value. */
    int ends[2];
    if (pipe(ends) != 0) {
        perror("greyctl: pipe");
        return CTL_FAILED;
    }
    pid_t child = fork();
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)close(ends[0]);
        (void)close(ends[1]);
        _exit(become_greyd(argv));
    }
    (void)close(ends[1]);
    FILE *in = child < 0 ? NULL : fdopen(ends[0], "r");
    char line[4096];
    while (in != NULL && fgets(line, sizeof line, in) != NULL) {
        char *remark = strstr(line, " # ");
        while (remark != NULL && remark > line && remark[-1] == ' ') {
            remark--;
        }
        if (remark != NULL) {
            (void)printf("%.*s\n", (int)(remark - line), line);
        }
    }
    if (in != NULL) {
        (void)fclose(in);
    } else {
        (void)close(ends[0]);
    }
    int status = 0;
    return child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : CTL_FAILED;
}

int local_config_check(struct call *c) {
    const char *argv[] = {"greyd", "--check-config", "--config", c->arg_count > 0 ? c->args[0] : CONFIG_FILE, NULL};
    return become_greyd(argv);
}

/* --- the program itself ------------------------------------------------------------------------------------------------------------------ */

int local_completion(struct call *c) {
    struct builder out;
    builder_init(&out, 256u * 1024u);
    if (help_completion(c->args[0], &out) != E_OK) {
        builder_free(&out);
        (void)fprintf(stderr, "greyctl: no completion for '%.40s': bash, zsh or fish\n", c->args[0]);
        return CTL_USAGE;
    }
    return verbs_print(&out);
}

int local_help(struct call *c) {
    struct builder out;
    unsigned used;
    builder_init(&out, 256u * 1024u);
    const struct verb *v = verbs_find(c->args, c->arg_count, &used);
    if (c->arg_count == 0) {
        help_all(&out);
    } else if (v != NULL && used == c->arg_count) {
        help_verb(v, &out);
    } else if (verbs_is_group(c->args[0])) {
        help_group(c->args[0], &out);
    } else {
        builder_free(&out);
        (void)fprintf(stderr, "greyctl: there is no verb '%.60s'; the nearest one is '%s'\n  -> greyctl --help lists them all\n",
                      c->args[0], verbs_nearest(c->args[0]));
        return CTL_USAGE;
    }
    return verbs_print(&out);
}

int local_version(struct call *c) {
    (void)c;
    (void)printf("greyctl " GREY_VERSION " (experimental: commands and formats may change)\n");
    return CTL_OK;
}

/* Help and completion, made from the table of verbs so that they cannot fall behind it. */
#include <stdio.h>
#include <string.h>

#include "agent/ctl/verbs.h"

static void put_line(struct builder *out, const char *left, const char *right) {
    builder_addf(out, "  %-32s %s\n", left, right);
}

static void put_options(struct builder *out, const struct verb_option *options, size_t count) {
    for (size_t i = 0; i < count && options[i].name != NULL; i++) {
        char left[80];
        (void)snprintf(left, sizeof left, "--%s%s%s", options[i].name, options[i].value != NULL ? " " : "",
                       options[i].value != NULL ? options[i].value : "");
        put_line(out, left, options[i].help);
    }
}

static void put_verbs(struct builder *out, const char *group, bool later) {
    size_t count, group_size = group == NULL ? 0 : strlen(group);
    const struct verb *all = verbs(&count);
    for (size_t i = 0; i < count; i++) {
        bool in_group = group == NULL || (strncmp(all[i].name, group, group_size) == 0 &&
                                          (all[i].name[group_size] == ' ' || all[i].name[group_size] == 0));
        if (in_group && (all[i].run == NULL) == later) {
            char left[80];
            (void)snprintf(left, sizeof left, "%s%s%s", all[i].name, all[i].args[0] != 0 ? " " : "", all[i].args);
            put_line(out, left, all[i].help);
        }
    }
}

void help_all(struct builder *out) {
    builder_add_str(out, "greyctl: looks at and commands a Grey Edge site\n\nusage: greyctl [options] [verb] ...\n\nverbs\n");
    put_verbs(out, NULL, false);
    builder_add_str(out, "\noptions of every verb\n");
    put_options(out, verbs_global, verbs_global_count);
    builder_add_str(out, "\nof later versions\n");
    put_verbs(out, NULL, true);
    builder_add_str(out, "\n'greyctl help VERB' shows one verb with its options; 'greyctl explain GREY-1001' an error.\n"
                         "Exit codes: 0 done; 1 failed or not reached; 2 usage, or not in this version; 3 reached, but refused; "
                         "4 no quorum.\n");
}

void help_verb(const struct verb *v, struct builder *out) {
    bool own = v->options[0].name != NULL;
    builder_addf(out, "greyctl %s: %s\n\nusage: greyctl %s%s%s%s\n", v->name, v->run == NULL ? "not in this version" : v->help,
                 v->name, own ? " [options]" : "", v->args[0] != 0 ? " " : "", v->args);
    if (own) {
        builder_add_str(out, "\noptions\n");
        put_options(out, v->options, VERB_OPTIONS_MAX);
    }
    builder_add_str(out, "\noptions of every verb\n");
    put_options(out, verbs_global, verbs_global_count);
}

void help_group(const char *group, struct builder *out) {
    builder_addf(out, "usage: greyctl %s ...\n\n", group);
    put_verbs(out, group, false);
    put_verbs(out, group, true);
}

/* --- completion ---------------------------------------------------------------------------------------------------------------------- */

/* The first words of all verbs, each once. */
static void put_first_words(struct builder *out) {
    size_t count;
    const struct verb *all = verbs(&count);
    for (size_t i = 0; i < count; i++) {
        size_t size = strcspn(all[i].name, " ");
        bool seen = false;
        for (size_t k = 0; k < i; k++) {
            seen = seen || (strncmp(all[k].name, all[i].name, size) == 0 && (all[k].name[size] == ' ' || all[k].name[size] == 0));
        }
        if (!seen && all[i].run != NULL) {
            builder_addf(out, "%s%.*s", i > 0 ? " " : "", (int)size, all[i].name);
        }
    }
}

static void put_option_words(struct builder *out, const struct verb *v) {
    for (size_t i = 0; v != NULL && i < VERB_OPTIONS_MAX && v->options[i].name != NULL; i++) {
        builder_addf(out, " --%s", v->options[i].name);
    }
    for (size_t i = 0; i < verbs_global_count; i++) {
        builder_addf(out, " --%s", verbs_global[i].name);
    }
}

/* case "$verb" in ...: what may follow each first word, and each whole verb. */
static void put_cases(struct builder *out) {
    size_t count;
    const struct verb *all = verbs(&count);
    for (size_t i = 0; i < count; i++) {
        size_t size = strcspn(all[i].name, " ");
        if (all[i].run == NULL) {
            continue;
        }
        if (all[i].name[size] == ' ' && (i == 0 || strncmp(all[i - 1].name, all[i].name, size + 1) != 0)) {
            builder_addf(out, "    '%.*s') words='", (int)size, all[i].name);
            for (size_t k = 0; k < count; k++) {
                if (all[k].run != NULL && strncmp(all[k].name, all[i].name, size + 1) == 0) {
                    builder_addf(out, " %s", all[k].name + size + 1);
                }
            }
            builder_add_str(out, "' ;;\n");
        }
        builder_addf(out, "    '%s') words='", all[i].name);
        if (strcmp(all[i].name, "completion") == 0) {
            builder_add_str(out, "bash zsh fish");
        } else if (strcmp(all[i].name, "help") == 0) {
            put_first_words(out);
        }
        put_option_words(out, &all[i]);
        builder_add_str(out, "' ;;\n");
    }
}

static void put_shell(struct builder *out, bool zsh) {
    builder_add_str(out, zsh ? "#compdef greyctl\n# For zsh: greyctl completion zsh > \"${fpath[1]}/_greyctl\"\n"
                               "autoload -U +X bashcompinit && bashcompinit\n"
                             : "# For bash: greyctl completion bash > /etc/bash_completion.d/greyctl\n");
    builder_add_str(out,
                    "_greyctl() {\n  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" "
                    "verb='' words='' i=1\n"
                    "  case \"$previous\" in\n    -o|--output) COMPREPLY=($(compgen -W 'table json wide' -- \"$current\")); return "
                    ";;\n    --priority) COMPREPLY=($(compgen -W 'critical high normal low' -- \"$current\")); return ;;\n"
                    "    --channel) COMPREPLY=($(compgen -W 'control events data' -- \"$current\")); return ;;\n"
                    "    --file|--config) COMPREPLY=($(compgen -f -- \"$current\")); return ;;\n  esac\n"
                    "  while [ \"$i\" -lt \"$COMP_CWORD\" ]; do\n    case \"${COMP_WORDS[i]}\" in\n"
                    "      -o|--output|--addr|--core|--timeout) i=$((i + 1)) ;;\n      -*) ;;\n"
                    "      *) verb=\"${verb:+$verb }${COMP_WORDS[i]}\" ;;\n    esac\n    i=$((i + 1))\n  done\n"
                    "  case \"$verb\" in\n    '') words='");
    put_first_words(out);
    put_option_words(out, NULL);
    builder_add_str(out, "' ;;\n");
    put_cases(out);
    builder_add_str(out, "  esac\n  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n}\ncomplete -F _greyctl greyctl\n");
}

static void put_quoted(struct builder *out, const char *text) { /* for fish, in single quotes */
    builder_add_byte(out, '\'');
    for (; *text != 0; text++) {
        if (*text == '\'' || *text == '\\') {
            builder_add_byte(out, '\\');
        }
        builder_add_byte(out, (uint8_t)*text);
    }
    builder_add_byte(out, '\'');
}

static void put_fish(struct builder *out) {
    size_t count;
    const struct verb *all = verbs(&count);
    builder_add_str(out, "# For fish: greyctl completion fish > ~/.config/fish/completions/greyctl.fish\ncomplete -c greyctl -f\n");
    for (size_t i = 0; i < verbs_global_count; i++) {
        builder_addf(out, "complete -c greyctl -l %s%s -d ", verbs_global[i].name, verbs_global[i].value != NULL ? " -x" : "");
        put_quoted(out, verbs_global[i].help);
        builder_add_byte(out, '\n');
    }
    for (size_t i = 0; i < count; i++) {
        size_t size = strcspn(all[i].name, " ");
        if (all[i].run == NULL) {
            continue;
        }
        bool two = all[i].name[size] == ' ';
        builder_addf(out, "complete -c greyctl -n __fish_use_subcommand -a %.*s -d ", (int)size, all[i].name);
        put_quoted(out, two ? "..." : all[i].help);
        if (two) {
            builder_addf(out, "\ncomplete -c greyctl -n '__fish_seen_subcommand_from %.*s' -a %s -d ", (int)size, all[i].name,
                         all[i].name + size + 1);
            put_quoted(out, all[i].help);
        }
        for (size_t k = 0; k < VERB_OPTIONS_MAX && all[i].options[k].name != NULL; k++) {
            builder_addf(out, "\ncomplete -c greyctl -n '__fish_seen_subcommand_from %.*s%s%s' -l %s%s -d ", (int)size, all[i].name,
                         two ? "; and __fish_seen_subcommand_from " : "", two ? all[i].name + size + 1 : "", all[i].options[k].name,
                         all[i].options[k].value != NULL ? " -x" : "");
            put_quoted(out, all[i].options[k].help);
        }
        builder_add_byte(out, '\n');
    }
}

enum grey_error help_completion(const char *shell, struct builder *out) {
    if (strcmp(shell, "bash") == 0 || strcmp(shell, "zsh") == 0) {
        put_shell(out, shell[0] == 'z');
    } else if (strcmp(shell, "fish") == 0) {
        put_fish(out);
    } else {
        return E_USAGE;
    }
    return E_OK;
}

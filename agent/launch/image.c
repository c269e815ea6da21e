#include "agent/launch/image.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <linux/magic.h>

#include "agent/launch/imageuser.h"
#include "agent/launch/layer.h"
#include "agent/launch/rundir.h"
#include "agent/launch/sieve.h"
#include "platform/json.h"

#define PATH_BYTES_MAX 2048u
#define CONFIG_BYTES_MAX (1024u * 1024u)
#define CRUN "crun"
#define PATH_DEFAULT "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct settings { /* of the process, as image or bundle has them; slices of the document */
    const json_t *arguments, *more_arguments, *variables;
    const char *directory;
    char root[PATH_BYTES_MAX];
    struct imageuser user;
    bool read_only;
};

/* Another than root inside: then it has a user namespace of its own, in which the one user that there is has this number. */
static bool is_renamed(const struct settings *s) {
    return s->user.uid != 0 || s->user.gid != 0;
}

/* --- config.json (OCI runtime-spec, config.md) ------------------------------------------------------------------------------------------------ */

static void put_list(struct json_writer *w, const char *name, const char *const *items) {
    json_key(w, name);
    json_open(w, '[');
    for (size_t i = 0; items[i] != NULL; i++) {
        json_str(w, items[i]);
    }
    json_close(w);
}

static void put_json_strings(struct json_writer *w, const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text != NULL) {
            json_str(w, text);
        }
    }
}

static bool is_given(char *const *variables, const char *text) {
    const char *sign = strchr(text, '=');
    size_t size = sign == NULL ? strlen(text) : (size_t)(sign - text) + 1;
    for (size_t i = 0; variables[i] != NULL; i++) {
        if (strlen(variables[i]) >= size && memcmp(variables[i], text, size) == 0) {
            return true;
        }
    }
    return false;
}

static bool has_variable(const struct image_plan *p, const struct settings *s, const char *text) {
    bool found = is_given(p->variables, text);
    for (size_t i = 0; i < json_array_size(s->variables) && !found; i++) {
        const char *own[] = {json_string_value(json_array_get(s->variables, i)), NULL};
        found = own[0] != NULL && is_given((char *const *)(uintptr_t)own, text);
    }
    return found;
}

/* A foreign root is not changed, so what is mounted there must have its place. */
static bool has_place(const struct settings *s, const char *where) {
    char path[PATH_BYTES_MAX + 64];
    struct stat st;
    (void)snprintf(path, sizeof path, "%s%s", s->root, where);
    return !s->read_only || lstat(path, &st) == 0;
}

static void put_process(struct json_writer *w, const struct image_plan *p, const struct settings *s) {
    json_key(w, "process");
    json_open(w, '{');
    json_member_bool(w, "terminal", false);
    json_key(w, "user");
    json_open(w, '{');
    json_member_uint(w, "uid", s->user.uid);
    json_member_uint(w, "gid", s->user.gid);
    json_close(w);
    json_key(w, "args");
    json_open(w, '[');
    if (p->start->command.count > 0) {
        for (uint32_t i = 0; i < p->start->command.count; i++) {
            json_text(w, p->start->command.at[i]);
        }
    } else {
        put_json_strings(w, s->arguments);
        put_json_strings(w, s->more_arguments);
    }
    json_close(w);
    json_key(w, "env");
    json_open(w, '[');
    for (size_t i = 0; p->variables[i] != NULL; i++) {
        json_str(w, p->variables[i]);
    }
    for (size_t i = 0; i < json_array_size(s->variables); i++) {
        const char *text = json_string_value(json_array_get(s->variables, i));
        if (text != NULL && !is_given(p->variables, text)) {
            json_str(w, text);
        }
    }
    static const char *const defaults[] = {PATH_DEFAULT, "HOME=" IMAGE_WORK};
    for (size_t i = 0; i < sizeof defaults / sizeof defaults[0]; i++) {
        if (!has_variable(p, s, defaults[i])) {
            json_str(w, defaults[i]);
        }
    }
    json_close(w);
    const char *directory = has_place(s, IMAGE_WORK) ? IMAGE_WORK : "/";
    json_member_str(w, "cwd", s->directory != NULL && s->directory[0] == '/' ? s->directory : directory);
    json_member_bool(w, "noNewPrivileges", true);
    json_key(w, "capabilities"); /* none, also none that root has inside */
    json_open(w, '{');
    static const char *const sets[] = {"bounding", "effective", "inheritable", "permitted", "ambient"}, *const none[] = {NULL};
    for (size_t i = 0; i < sizeof sets / sizeof sets[0]; i++) {
        put_list(w, sets[i], none);
    }
    json_close(w);
    json_close(w);
}

static void put_mount(struct json_writer *w, const char *where, const char *type, const char *source, const char *const *options) {
    json_open(w, '{');
    json_member_str(w, "destination", where);
    json_member_str(w, "type", type);
    json_member_str(w, "source", source);
    put_list(w, "options", options);
    json_close(w);
}

static void put_mounts(struct json_writer *w, const struct image_plan *p, const struct settings *s) {
    static const char *const
        proc[] = {"nosuid", "noexec", "nodev", NULL},
        *const dev[] = {"nosuid", "strictatime", "mode=755", NULL}, *const shm[] = {"nosuid", "noexec", "nodev", "mode=1777", NULL},
        *const tmp[] = {"nosuid", "nodev", "mode=1777", NULL}, *const bound[] = {"bind", "nosuid", "nodev", NULL},
        *const shown[] = {"bind", "ro", "nosuid", "nodev", "noexec", NULL},
        *const there[] = {"bind", "nosuid", "noexec", "nodev", NULL};
    static const char *const names[] = {"/etc/resolv.conf", "/etc/hosts"}; /* the network is the gateway's, so its names are */
    json_key(w, "mounts");
    json_open(w, '[');
    if (is_renamed(s)) { /* the processes are those of the namespace around it, where /proc is theirs already (isolate_mounts) */
        put_mount(w, "/proc", "none", "/proc", there);
    } else {
        put_mount(w, "/proc", "proc", "proc", proc);
    }
    put_mount(w, "/dev", "tmpfs", "tmpfs", dev);
    put_mount(w, "/dev/shm", "tmpfs", "shm", shm);
    if (has_place(s, "/tmp")) {
        put_mount(w, "/tmp", "tmpfs", "tmp", tmp);
    }
    if (has_place(s, IMAGE_WORK)) {
        put_mount(w, IMAGE_WORK, "none", p->work_path, bound);
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0] && (p->start->isolate & LAUNCH_ISOLATE_NETWORK) == 0; i++) {
        if (access(names[i], R_OK) == 0 && has_place(s, names[i])) {
            put_mount(w, names[i], "none", names[i], shown);
        }
    }
    json_close(w);
}

/* The same filter as the launcher's own tasks have; crun itself could not work under it. */
static void put_filter(struct json_writer *w) {
    json_key(w, "seccomp");
    json_open(w, '{');
    json_member_str(w, "defaultAction", "SCMP_ACT_ALLOW");
    json_key(w, "syscalls");
    json_open(w, '[');
    json_open(w, '{');
    put_list(w, "names", sieve_refused());
    json_member_str(w, "action", "SCMP_ACT_ERRNO");
    json_member_uint(w, "errnoRet", EPERM);
    json_close(w);
    for (unsigned bit = 0; bit < 32; bit++) {
        if ((sieve_namespaces() & 1u << bit) == 0) {
            continue;
        }
        json_open(w, '{');
        put_list(w, "names", (const char *const[]){"clone", NULL});
        json_member_str(w, "action", "SCMP_ACT_ERRNO");
        json_member_uint(w, "errnoRet", EPERM);
        json_key(w, "args");
        json_open(w, '[');
        json_open(w, '{');
        json_member_uint(w, "index", 0);
        json_member_uint(w, "value", 1ull << bit);
        json_member_uint(w, "valueTwo", 1ull << bit);
        json_member_str(w, "op", "SCMP_CMP_MASKED_EQ");
        json_close(w);
        json_close(w);
        json_close(w);
    }
    json_open(w, '{');
    put_list(w, "names", (const char *const[]){"clone3", NULL});
    json_member_str(w, "action", "SCMP_ACT_ERRNO");
    json_member_uint(w, "errnoRet", ENOSYS);
    json_close(w);
    json_close(w);
    json_close(w);
}

static void put_mapping(struct json_writer *w, const char *name, uint32_t inside) {
    json_key(w, name);
    json_open(w, '[');
    json_open(w, '{');
    json_member_uint(w, "containerID", inside);
    json_member_uint(w, "hostID", 0); /* the task's user, in the namespace that the launcher made */
    json_member_uint(w, "size", 1);
    json_close(w);
    json_close(w);
}

static bool write_config(const struct image_plan *p, const struct settings *s, struct fault *f) {
    static const char *const kinds[] = {"mount", "ipc", "uts",
                                        "user"}; /* user, processes and network are those that the launcher made */
    struct json_writer w;
    struct builder text;
    char path[PATH_BYTES_MAX];
    builder_init(&text, CONFIG_BYTES_MAX);
    json_writer_init(&w, &text);
    json_open(&w, '{');
    json_member_str(&w, "ociVersion", "1.0.2");
    put_process(&w, p, s);
    json_key(&w, "root");
    json_open(&w, '{');
    json_member_str(&w, "path", s->root);
    json_member_bool(&w, "readonly", s->read_only);
    json_close(&w);
    json_member_text(&w, "hostname", p->start->id);
    put_mounts(&w, p, s);
    json_key(&w, "linux");
    json_open(&w, '{');
    json_key(&w, "namespaces");
    json_open(&w, '[');
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0] - !is_renamed(s); i++) {
        json_open(&w, '{');
        json_member_str(&w, "type", kinds[i]);
        json_close(&w);
    }
    json_close(&w);
    if (is_renamed(s)) {
        put_mapping(&w, "uidMappings", s->user.uid);
        put_mapping(&w, "gidMappings", s->user.gid);
    }
    put_filter(&w);
    json_close(&w);
    json_close(&w);
    (void)snprintf(path, sizeof path, "%s/config.json", p->folder);
    int fd = text.err != E_OK ? -1 : open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool well = fd >= 0 && write(fd, text.data, text.size) == (ssize_t)text.size;
    if (!well) {
        (void)fault_errno(f, E_IO, "%s", path);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    builder_free(&text);
    return well;
}

static bool may_be(const struct image_plan *p, const struct settings *s, struct fault *f) {
    if (p->no_root && s->user.uid == 0) {
        (void)fault_set(f, E_IMAGE_ROOT, "User is root, 0 or none");
        return false;
    }
    return true;
}

/* --- Images and bundles ------------------------------------------------------------------------------------------------------------------------ */

static const char *path_of(const struct image_plan *p, char out[PATH_BYTES_MAX]) {
    (void)snprintf(out, PATH_BYTES_MAX, "%.*s", (int)p->start->image.size, (const char *)p->start->image.data);
    return out;
}

static bool unpack_all(const struct image_plan *p, const struct layout *l, const json_t *manifest, const char *root,
                       struct fault *f) {
    struct layer_room room = {.bytes = p->start->disk_bytes > 0 ? p->start->disk_bytes : LAYER_BYTES_MAX,
                              .entries = LAYER_ENTRIES_MAX};
    const json_t *layers = json_object_get(manifest, "layers");
    int fd = mkdir(root, 0755) == 0 ? open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool well = fd >= 0;
    if (!well) {
        (void)fault_errno(f, E_IO, "%s", root);
    }
    if (well && json_array_size(layers) > LAYOUT_LAYERS_MAX) {
        (void)fault_set(f, E_TOO_LARGE, "the image has more than %u layers", LAYOUT_LAYERS_MAX);
        well = false;
    }
    for (size_t i = 0; well && i < json_array_size(layers); i++) {
        well = layer_unpack(l, json_array_get(layers, i), fd, &room, f);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return well;
}

static bool from_image(const struct image_plan *p, struct fault *f) {
    char path[PATH_BYTES_MAX];
    struct layout l = {.fd = -1};
    struct settings s = {.read_only = false};
    json_t *manifest = layout_open(&l, path_of(p, path), f) ? layout_manifest(&l, f) : NULL;
    json_t *config = manifest == NULL ? NULL : layout_document(&l, json_object_get(manifest, "config"), f);
    (void)snprintf(s.root, sizeof s.root, "%s/rootfs", p->folder);
    bool well = config != NULL && unpack_all(p, &l, manifest, s.root, f);
    if (well) {
        const json_t *of = json_object_get(config, "config");
        s.arguments = json_object_get(of, "Entrypoint");
        s.more_arguments = json_object_get(of, "Cmd");
        s.variables = json_object_get(of, "Env");
        s.directory = json_string_value(json_object_get(of, "WorkingDir"));
        well = imageuser_find(json_string_value(json_object_get(of, "User")), s.root, &s.user, f) && may_be(p, &s, f) &&
               write_config(p, &s, f);
    }
    json_decref(config);
    json_decref(manifest);
    layout_close(&l);
    return well;
}

static json_t *read_bundle(const char *path, struct fault *f) {
    struct builder text;
    char name[PATH_BYTES_MAX + 16];
    uint8_t room[4096];
    ssize_t got = 0;
    builder_init(&text, CONFIG_BYTES_MAX);
    (void)snprintf(name, sizeof name, "%s/config.json", path);
    int fd = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (fd >= 0 && text.err == E_OK && (got = read(fd, room, sizeof room)) > 0) {
        builder_add(&text, bytes_of(room, (size_t)got));
    }
    bool well = fd >= 0 && got == 0 && text.err == E_OK;
    if (!well) {
        (void)fault_errno(f, E_IO, "%s", name);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    json_t *document = well ? json_read(builder_bytes(&text), f) : NULL;
    builder_free(&text);
    return document;
}

static bool user_of_bundle(const json_t *process, struct imageuser *u, struct fault *f) {
    const json_t *user = json_object_get(process, "user");
    json_int_t uid = json_integer_value(json_object_get(user, "uid")), gid = json_integer_value(json_object_get(user, "gid"));
    bool well = uid >= 0 && uid < UINT32_MAX && gid >= 0 && gid < UINT32_MAX;
    if (!well) {
        (void)fault_set(f, E_BAD_JSON, "its user is none: uid and gid go from 0 to %u", UINT32_MAX - 1);
    }
    *u = well ? (struct imageuser){(uint32_t)uid, (uint32_t)gid} : (struct imageuser){0, 0};
    return well;
}

/* Its root is used where it is, by several runs maybe, so it is read only. */
static bool from_bundle(const struct image_plan *p, struct fault *f) {
    char path[PATH_BYTES_MAX];
    struct settings s = {.read_only = true};
    json_t *document = read_bundle(path_of(p, path), f);
    if (document == NULL) {
        return false;
    }
    const json_t *process = json_object_get(document, "process");
    const char *root = json_string_value(json_object_get(json_object_get(document, "root"), "path"));
    root = root == NULL ? "rootfs" : root;
    int size = snprintf(s.root, sizeof s.root, "%s%s%s", root[0] == '/' ? "" : path, root[0] == '/' ? "" : "/", root);
    s.arguments = json_object_get(process, "args");
    s.variables = json_object_get(process, "env");
    s.directory = json_string_value(json_object_get(process, "cwd"));
    bool well = size < (int)sizeof s.root && user_of_bundle(process, &s.user, f) && may_be(p, &s, f) && write_config(p, &s, f);
    json_decref(document);
    return well;
}

bool image_prepare(const struct image_plan *p, struct fault *f) {
    return p->start->bundle ? from_bundle(p, f) : from_image(p, f);
}

/* crun refuses machines that have cgroup v1 and v2 side by side, whether it is to use them or not (libcrun's cgroup mode "hybrid"), so
 * on those it does not see v2.  The run is in the launcher's groups already. */
static bool hide_second_groups(void) {
    struct statfs top, below;
    if (statfs("/sys/fs/cgroup", &top) != 0 || top.f_type != TMPFS_MAGIC || statfs("/sys/fs/cgroup/unified", &below) != 0 ||
        below.f_type != CGROUP2_SUPER_MAGIC) {
        return true;
    }
    return mount("tmpfs", "/sys/fs/cgroup/unified", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) == 0;
}

void image_run(const struct image_plan *p) {
    char state[PATH_BYTES_MAX], began[PATH_BYTES_MAX], runtime[PATH_BYTES_MAX + 24], bundle[PATH_BYTES_MAX], id[40];
    (void)snprintf(state, sizeof state, "%s/state", p->folder);
    (void)snprintf(began, sizeof began, "%s/%s", p->folder, RUNDIR_BEGAN);
    (void)snprintf(runtime, sizeof runtime, "XDG_RUNTIME_DIR=%s", p->folder);
    (void)snprintf(bundle, sizeof bundle, "%s", p->folder);
    (void)snprintf(id, sizeof id, "grey-%" PRIx64 "-%" PRIu64, p->start->scope, p->start->token);
    static char name[] = CRUN, root[] = "--root", groups[] = "--cgroup-manager=disabled", run[] = "run", where[] = "--bundle",
                mark[] = "--pid-file", path[] = PATH_DEFAULT;
    char *arguments[] = {name, root, state, groups, run, mark, began, where, bundle, id, NULL},
         *variables[] = {path, runtime, NULL};
    if (hide_second_groups()) {
        (void)execvpe(CRUN, arguments, variables);
    }
}

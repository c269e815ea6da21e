/* config.h: every configuration key of greyd in one table: YAML path, environment variable, flag, range, default, meaning.
 * Flags over environment over file over the board's profile over default; where each value came from is remembered.
 * docs/CONFIGURATION.md shows the table.
 * Thread: start of the program and the loop's. */
#ifndef AGENT_CONFIG_H
#define AGENT_CONFIG_H

#include "federation/window.h"
#include "include/grey/event.h"
#include "include/grey/ids.h"
#include "platform/bytes.h"
#include "platform/fault.h"

#define CONFIG_ENDPOINTS_MAX 8u
#define CONFIG_FILE_DEFAULT "/etc/grey/greyd.yaml"
#define CONFIG_PROFILE_DEFAULT "/etc/grey/board.yaml"

enum config_mode { CONFIG_MODE_SINGLE, CONFIG_MODE_SITE, CONFIG_MODE_EDGE, CONFIG_MODE_WITNESS };

struct config {
    enum config_mode mode; /* dev is another word for single */
    char node_id[LIMIT_NAME_BYTES + 1], site_id[LIMIT_NAME_BYTES + 1];
    char data_dir[LIMIT_PATH_BYTES + 1], wal_dir[LIMIT_PATH_BYTES + 1]; /* wal_dir "": data_dir/log */
    char http_addr[LIMIT_ADDRESS_BYTES + 1], peer_addr[LIMIT_ADDRESS_BYTES + 1], peer_advertise[LIMIT_ADDRESS_BYTES + 1];
    char socket_path[LIMIT_PATH_BYTES + 1]; /* "": data_dir/greyd.sock */
    bool bootstrap;
    char join[1024];
    char log_level[8], log_format[8];
    int64_t election_timeout_ms, heartbeat_interval_ms; /* heartbeat 0: half of the default time-out, a third of a set one */
    bool lease_reads;
    int64_t clock_drift_percent;
    int64_t seal_interval_ms;
    int64_t snapshot_threshold, snapshot_interval_s, snapshots_kept;
    int64_t check_interval_s, max_write_mb_per_day;
    int64_t commit_delay_ms, provisional_after_ms;
    int64_t default_priority;
    bool scheduler;
    char launcher[LIMIT_PATH_BYTES + 1];
    int64_t proof_retention_days;
    char local_affinity[8];
    int64_t priority_lanes;
    bool offload;
    char offload_when[16], offload_hours[128];
    bool overcommit;
    int64_t burst_s, hotspot_cpu_percent, hotspot_window_s;
    int64_t tasks_max;
    int64_t cpu_limit_millicores, memory_limit_bytes; /* 0: what the machine has */
    bool peer_tls, auth;                              /* auth: plain callers of this machine need a token */
    char socket_group[LIMIT_NAME_BYTES + 1];
    int64_t calls_per_second;
    bool seccomp;
    char tls_ca[LIMIT_PATH_BYTES + 1], tls_cert[LIMIT_PATH_BYTES + 1], tls_key[LIMIT_PATH_BYTES + 1], tls_min_version[8],
        signing_key[8];
    bool attestation;
    char attest_type[24], attest_socket[LIMIT_PATH_BYTES + 1], attest_document[LIMIT_PATH_BYTES + 1];
    int64_t attest_period_s;
    bool metrics_enabled;
    int64_t metrics_port; /* 0: off */
    bool federation;
    char endpoints[CONFIG_ENDPOINTS_MAX][LIMIT_ADDRESS_BYTES + 1];
    uint32_t endpoint_count;
    uint32_t priorities[CONFIG_ENDPOINTS_MAX]; /* priority_count of them; the others follow in their order */
    uint32_t priority_count;
    int64_t failback_s, handover_s;
    char proxy[LIMIT_ADDRESS_BYTES + 1], proxy_auth[LIMIT_PATH_BYTES + 1]; /* "": none */
    bool upstream_alpn;
    bool upstream_tls, upstream_seal;
    char upstream_ca[LIMIT_PATH_BYTES + 1], upstream_cert[LIMIT_PATH_BYTES + 1], upstream_key[LIMIT_PATH_BYTES + 1],
        core_key[LIMIT_PATH_BYTES + 1];
    int64_t keepalive_s, queue_size_mb, offline_hours_max;
    int64_t floor_percent[PRIORITY_COUNT]; /* of critical: not set */
    int64_t age_hours_max;                 /* 0: none */
    struct {
        char type[LIMIT_TYPE_PATTERN_BYTES + 1];
        uint32_t seconds;
    } times[LIMIT_QUEUE_TTLS];
    uint32_t time_count;
    int64_t limit_kbps, down_limit_kbps; /* kilobits per second; 0: none */
    bool privileged[CHANNEL_COUNT];      /* federation.bandwidth.priority_traffic */
    struct window windows[WINDOWS_MAX];
    char window_texts[WINDOWS_MAX][WINDOW_TEXT_BYTES + 1];
    uint32_t window_count;
    char time_zone[64];                     /* "": the machine's */
    int64_t budget_day_kb, budget_month_kb; /* 1,000 bytes; 0: none */
    int64_t budget_reserve_percent, budget_month_begins_day;
    bool insecure;
    int64_t cache_kb;          /* of pages, each database */
    int64_t memory_budget_mb;  /* of this process, resident; 0: none */
    int64_t storage_stall_s;   /* the watchdog is not fed beyond */
    int64_t temperature_max_c; /* of the hottest zone; 0: none */

    char update_slots[LIMIT_PATH_BYTES + 1]; /* "": none */
    char update_product[64 + 1];
    char update_root[LIMIT_PATH_BYTES + 1]; /* "": none */
    int64_t update_soak_s, update_turn_s;

    /* what the command line asks for instead of running */
    bool check, print, show_help, show_version;
    uint16_t origin[128]; /* per key: where its value came from */
    uint32_t origin_line[128];
    char file[LIMIT_PATH_BYTES + 1], profile[LIMIT_PATH_BYTES + 1]; /* "": none was read */
};

void config_defaults(struct config *c);

/* The whole way: finds --config and --profile among the arguments, reads the files (limits as yaml.h), the environment (getenv form: NAME -> value
 * or NULL), the flags; then checks what belongs together.  E_USAGE or E_CONFIG with file, line, column, what was expected and the
 * nearest known key. read_file: gives the text of a file, appended to out; E_NOT_FOUND when there is none. */
enum grey_error config_load(struct config *c, int argc, char **argv, const char *(*environment)(const char *name),
                            enum grey_error (*read_file)(const char *path, struct builder *out, struct fault *f), struct fault *f);

/* One YAML text on top of c; name: for messages.  Used by config_load, tests and the fuzz target. */
enum grey_error config_read(struct config *c, struct bytes text, const char *name, struct fault *f);
/* The same for a board's profile, to be read before the file. */
enum grey_error config_read_profile(struct config *c, struct bytes text, const char *name, struct fault *f);

void config_print(const struct config *c, struct builder *out);      /* effective values and where each came from */
void config_list_inert(const struct config *c, struct builder *out); /* keys of the file that are known but without effect yet */
void config_document(struct builder *out);                           /* the table, in Markdown */
void config_help(struct builder *out);                               /* for --help */
bool config_loopback(const char *address);                           /* an address that only this machine reaches */

#endif

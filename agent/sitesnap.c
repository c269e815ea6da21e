#include "agent/sitedisk.h"

void sitedisk_snapshot(struct sitedisk *d, struct sitelog_snapshot *job) {
    (void)d;
    job->err = fault_set(&job->fault, E_NOT_HERE_YET, "snapshots");
}

size_t sitedisk_snapshots(const struct sitedisk *d, struct sitelog_snapshot_info *out, size_t max) {
    (void)d, (void)out, (void)max;
    return 0;
}

enum grey_error sitelog_restore(const char *file, const char *data_dir, const char *wal_dir, struct fault *f) {
    (void)data_dir, (void)wal_dir;
    return fault_set(f, E_NOT_HERE_YET, "restoring %s", file);
}

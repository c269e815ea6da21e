#include "agent/sitedisk.h"

void sitedisk_snapshot(struct sitedisk *d, struct sitelog_snapshot *job) {
    (void)d;
    job->err = fault_set(&job->fault, E_NOT_HERE_YET, "snapshots");
}

size_t sitedisk_snapshots(const struct sitedisk *d, struct sitelog_snapshot_info *out, size_t max) {
    (void)d, (void)out, (void)max;
    return 0;
}

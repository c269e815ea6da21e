/* What happened in the runs, by kind, and the cases of the fault catalogue that it stands for: a kind that never occurs tests nothing. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/world.h"

static const struct {
    const char *name, *cases;
} kinds[COUNT_KINDS] = {
    [COUNT_CRASH] = {"crashes", "R10"},
    [COUNT_CRASH_BEFORE_STORE] = {"crashes before store", "R1 R11"},
    [COUNT_CRASH_BEFORE_SEND] = {"crashes before send", "R1 R20"},
    [COUNT_CRASH_AMID_SENDS] = {"crashes amid sends", "R1 R6"},
    [COUNT_CRASH_INSTALLING] = {"crashes while installing", "R17"},
    [COUNT_RESTART] = {"restarts", "R1 P6"},
    [COUNT_WRITES_LOST] = {"writes lost in crashes", "R1 P1"},
    [COUNT_PARTITION] = {"partitions", "R10 N9"},
    [COUNT_ONE_WAY] = {"one-way cuts", "R13 N9"},
    [COUNT_RING] = {"rings", "R13"},
    [COUNT_STAR] = {"stars", "R13"},
    [COUNT_BRIDGE] = {"bridges", "R13"},
    [COUNT_LAG] = {"one-way delays", "R15 N9"},
    [COUNT_LINK_DOWN] = {"links down", "N5"},
    [COUNT_LOST] = {"messages lost", "N1"},
    [COUNT_DUPLICATED] = {"messages duplicated", "R14 R15 N1"},
    [COUNT_REORDERED] = {"messages late", "R14 R15 N1"},
    [COUNT_CORRUPTED_FRAME] = {"frames corrupted", "N1"},
    [COUNT_CORRUPTED_PAYLOAD] = {"payloads corrupted", "B10"},
    [COUNT_PAUSE] = {"pauses", "R4 C5"},
    [COUNT_PAUSE_ALL] = {"pauses of all", "C5"},
    [COUNT_WALL_JUMP] = {"wall clock jumps", "C2 C3"},
    [COUNT_CLOCK_RATE] = {"clock rate changes", "C1"},
    [COUNT_CLOCK_JUMP] = {"clock jumps", "C5"},
    [COUNT_CLOCK_STOP] = {"clocks stopped", "C1"},
    [COUNT_SLOW_DISK] = {"slow disks", "P8"},
    [COUNT_STUCK_DISK] = {"stuck disks", "P8"},
    [COUNT_FULL_DISK] = {"full disks", "P5"},
    [COUNT_FSYNC_ERROR] = {"fsync errors", "P4 P9"},
    [COUNT_BIT_FLIPPED] = {"bits flipped on disk", "P10 P12"},
    [COUNT_MISDIRECTED] = {"writes misdirected", "P10"},
    [COUNT_LOST_WRITE] = {"writes lost in silence", "P10 R16"},
    [COUNT_ROW_LOST] = {"rows amid a log damaged", "P10 P12"},
    [COUNT_PAYLOAD_DAMAGED] = {"payloads amid a log damaged", "P10 P12"},
    [COUNT_MENDED] = {"logs mended", "P10"},
    [COUNT_MENDED_TOGETHER] = {"logs mended while others are", "P12"},
    [COUNT_MEND_FORGONE] = {"entries done without", "P10"},
    [COUNT_MEND_CRASH] = {"crashes while mending", "P10"},
    [COUNT_MEND_SET_ASIDE] = {"logs beyond mending", "P10"},
    [COUNT_OLD_DISK] = {"older disks put back", "L14"},
    [COUNT_WIPE] = {"wiped nodes", "R10"},
    [COUNT_DAMAGE_FOUND] = {"damages found at start", "P10 R16"},
    [COUNT_TRANSFER] = {"transfers", "R6"},
    [COUNT_RELUCTANT] = {"members made reluctant", "R6"},
    [COUNT_HURRIED] = {"members told at once", "R20"},
    [COUNT_LEARNER] = {"learners added", "R5 R7"},
    [COUNT_PROMOTE] = {"promotions", "R5 R7"},
    [COUNT_REMOVE] = {"removals", "R5 R8"},
    [COUNT_JOINT] = {"joint changes", "R6"},
    [COUNT_REPLACE] = {"replacements", "R6"},
    [COUNT_COMPACTED] = {"compactions", "R14 R17"},
    [COUNT_INSTALLED] = {"snapshots installed", "R17"},
    [COUNT_INSTALL_FAILED] = {"snapshots failed", "R17"},
    [COUNT_LOADED] = {"loads", "R19"},
    [COUNT_LOAD_FAILED] = {"loads failed", "R19"},
    [COUNT_TRUNCATED] = {"truncations", "R2"},
    [COUNT_REBASED] = {"witnesses rebased", "R17"},
    [COUNT_ELECTED] = {"elections won", "R2"},
    [COUNT_QUORUM_LOST] = {"quorums lost", "R4"},
    [COUNT_COMMITTED] = {"entries committed", ""},
    [COUNT_ACKNOWLEDGED] = {"proposals acknowledged", "R22"},
    [COUNT_READ] = {"reads", "R3"},
    [COUNT_READ_LEASED] = {"reads by lease", "R4 C1"},
    [COUNT_READ_FAILED] = {"reads failed", "R3"},
    [COUNT_SCENE_TWO_MAJORITIES] = {"scene: two majorities", "R5"},
    [COUNT_SCENE_WIPED] = {"scene: wiped and back", "R10"},
    [COUNT_SCENE_PROMOTED] = {"scene: promoted unawares", "R7"},
    [COUNT_SCENE_PARTIAL] = {"scene: partly connected", "R13"},
    [COUNT_SCENE_FIGURE_8] = {"scene: figure 8", "R2"},
    [COUNT_SCENE_AHEAD] = {"scene: a term ahead", "R11"},
    [COUNT_SCENE_LEASE] = {"scene: late answers", "R4"},
    [COUNT_SCENE_EXCHANGED] = {"scene: voters exchanged", "R6"},
    [COUNT_SCENE_INSTALLED] = {"scene: installed members", "R17"},
    [COUNT_SCENE_ALL_DAMAGED] = {"scene: all logs damaged", "P12"},
    [COUNT_STEPS] = {"steps", ""},
};

bool cover_print(const uint64_t counts[COUNT_KINDS]) {
    uint32_t met = 0;
    for (uint32_t k = 0; k < COUNT_KINDS; k++) {
        met += counts[k] > 0;
        printf("  %-28s %-11s %12" PRIu64 "%s\n", kinds[k].name, kinds[k].cases, counts[k], counts[k] > 0 ? "" : "  did not occur");
    }
    printf("  %" PRIu32 " of %d kinds occurred\n", met, COUNT_KINDS);
    return met == COUNT_KINDS;
}

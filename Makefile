# Grey Edge.  `make help` lists the targets; `make V=1` shows the commands; `make CC=clang`; `make SAN=address,undefined`;
# `make cross BOARD=raspberrypi4` or `make cross ARCH=arm64`: for another machine; `make MBEDTLS=3.6`: with the mbedTLS of Debian 13.
# One build, not recursive, out of tree in build/<arch>[-variant]/.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
VERSION := 0.1.0
# Of signed bundles (docs/UPDATES.md): rises with a release that must not be replaced by an earlier one any more.
UPDATE_COUNTER := 1
comma := ,
# --- For which machine.  A board is data (boards/README.md); an architecture without a board means the board that runs on all of it. ---
MACHINE := $(patsubst x86_64%,amd64,$(patsubst aarch64%,arm64,$(patsubst arm-%,armhf,$(shell $(CC) -dumpmachine 2>/dev/null))))
ifneq ($(origin ARCH),command line)
ARCH := $(MACHINE)
endif
ifneq ($(words $(CURDIR)),1)
$(error make knows no folders with white space in their names: move this one, $(CURDIR))
endif
ifeq ($(filter $(MACHINE) amd64 arm64 armhf,$(ARCH)),)
$(error ARCH=$(ARCH): it is amd64, arm64 or armhf)
endif
BASELINE_amd64 := generic-amd64
BASELINE_arm64 := qemu-arm64
BASELINE_armhf := qemu-armhf
ifneq ($(origin BOARD),command line)
BOARD := $(BASELINE_$(ARCH))
else ifeq ($(wildcard boards/$(BOARD)/build.mk),)
$(error BOARD=$(BOARD): there are $(patsubst boards/%/build.mk,%,$(wildcard boards/*/build.mk)))
endif
-include $(if $(BOARD),boards/$(BOARD)/build.mk)
ifneq ($(filter-out amd64:x86_64-% arm64:aarch64-% armhf:arm-%,$(ARCH):$(TRIPLE)),)
$(error ARCH=$(ARCH) is not what BOARD=$(BOARD) is: one of them is enough)
endif
ifneq ($(ARCH),$(MACHINE))
SYSROOT := build/sysroot/$(ARCH)
override CC := $(if $(findstring clang,$(CC)),clang --target=$(TRIPLE),$(TRIPLE)-gcc) --sysroot=$(CURDIR)/$(SYSROOT)
AR := $(TRIPLE)-ar
RUNNER := qemu-$(firstword $(subst -, ,$(TRIPLE)))-static -L $(CURDIR)/$(SYSROOT)
endif
# The machine's mbedTLS, or 3.6 from Debian 13's source package where that is another one.
MBEDTLS ?=
MBEDTLS_TREE := $(if $(filter 3.6,$(MBEDTLS)),build/mbedtls-3.6)
ifneq ($(filter-out 3.6,$(MBEDTLS)),)
$(error MBEDTLS=$(MBEDTLS): it is 3.6, or nothing for the one that is installed)
endif
ifneq ($(and $(MBEDTLS_TREE),$(filter-out $(MACHINE),$(ARCH))),)
$(error MBEDTLS=3.6 is for tests on this machine; other machines get the mbedTLS of their Debian)
endif
VARIANT := $(if $(MBEDTLS_TREE),-mbedtls36)$(if $(CPU_FLAGS),-$(BOARD))$(if $(findstring clang,$(CC)),-clang)$(if $(SAN),-$(subst $(comma),-,$(SAN)))
BUILD ?= build/$(ARCH)$(VARIANT)
FUZZ_BUILD := build/$(ARCH)-fuzz$(if $(MBEDTLS_TREE),-mbedtls36)
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2);)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Werror
CFLAGS ?= -O2 -g
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -DGREY_VERSION='"$(VERSION)"' -DGREY_UPDATE_COUNTER=$(UPDATE_COUNTER)ull
ifneq ($(MBEDTLS_TREE),)
CPPFLAGS += -isystem $(MBEDTLS_TREE)/include
LDFLAGS += -L$(MBEDTLS_TREE)/library
MBEDTLS_LIBRARY := $(MBEDTLS_TREE)/library/libmbedtls.a
endif
# What this compiler knows for this processor.
takes = $(shell $(CC) -Werror $(1) -c -x c /dev/null -o /dev/null 2>/dev/null && echo $(1))
HARDEN := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2 $(call takes,-fstack-clash-protection) $(call takes,-fcf-protection) \
          $(call takes,-mbranch-protection=standard)) $(HARDEN_FLAGS) $(CPU_FLAGS)
# No path of this machine in what is built: the same sources give the same bytes anywhere.
ALL_CFLAGS = -std=c11 $(WARN) $(HARDEN) -ffile-prefix-map=$(CURDIR)=. $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now,-z,noexecstack -Wl,--as-needed $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS_BASE := -lcbor -llz4 -lz -lsodium -lyaml -ljansson -lsqlite3 -lpq -lmbedtls -lmbedx509 -lmbedcrypto -lhttp_parser -lseccomp -ltss2-esys -ltss2-mu -ltss2-tctildr -pthread
LIBS := $(LIBS_BASE)

# --- What is where.  A main program's file is not in its folder's archive. ------------------------------------------------------
MAINS := agent/greyd.c agent/identity/grey_tpm.c agent/slots/grey_update.c agent/ctl/greyctl.c agent/launch/grey_launch.c core/grey_core.c
SOURCES := $(filter-out $(MAINS),$(wildcard platform/*.c federation/*.c federation/raft/*.c federation/attest/*.c agent/*.c agent/*/*.c core/*.c))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
PLATFORM_O := $(call objects,$(filter platform/%,$(SOURCES)))
FEDERATION_O := $(call objects,$(filter federation/%,$(SOURCES)))
CTL_O := $(call objects,$(filter agent/ctl/%,$(SOURCES)))
LAUNCH_O := $(call objects,$(filter agent/launch/%,$(SOURCES)))
AGENT_O := $(call objects,$(filter-out agent/ctl/% agent/launch/%,$(filter agent/%,$(SOURCES))))
CORE_O := $(call objects,$(filter core/%,$(SOURCES)))
ARCHIVES := $(BUILD)/libctl.a $(BUILD)/libagent.a $(BUILD)/liblaunch.a $(BUILD)/libcore.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
PROGRAMS := $(addprefix $(BUILD)/,$(if $(wildcard agent/greyd.c),greyd) $(if $(wildcard agent/ctl/greyctl.c),greyctl) \
            $(if $(wildcard core/grey_core.c),grey-core) $(if $(wildcard agent/launch/grey_launch.c),grey-launch) grey-tpm grey-update)
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
SIM_O := $(call objects,$(wildcard tests/sim/*.c))
WEEK_O := $(call objects,$(wildcard tests/week/*.c))

# Pure modules: no system call, no clock, no allocator but platform/bytes (docs/ARCHITECTURE.md).  COMPUTE: what they may use below.
COMPUTE := platform/bytes.c platform/fault.c platform/codec.c platform/json.c platform/yaml.c platform/compress.c platform/digest.c \
           platform/keys.c platform/cert.c platform/cipher.c platform/ecdsa.c platform/ekcert.c platform/credential.c platform/mbed.c
PURE := $(filter federation/% agent/table/% agent/state/% agent/work/% agent/store/mendplan.c agent/store/mendask.c agent/store/wear.c,$(SOURCES))
PURE_MAY_CALL := json_array_get json_array_size json_delete json_object_get json_object_iter json_object_iter_key \
                 json_object_iter_next json_string_length json_string_value \
                 memcpy memmove memset memcmp strlen strcmp strncmp memchr __stack_chk_fail __memcpy_chk __memset_chk __memmove_chk \
                 must_failed _GLOBAL_OFFSET_TABLE_

# The earliest time that a clock may show: of the commit, for the same source gives the same program, unless this machine's is earlier.
BUILD_S := $(shell now=$$(date +%s); s=$${SOURCE_DATE_EPOCH:-$$(git log -1 --format=%ct 2>/dev/null || echo $$now)}; [ "$$s" -lt "$$now" ] && echo $$s || echo $$now)
$(BUILD)/obj/platform/now.o $(FUZZ_BUILD)/obj/platform/now.o: CPPFLAGS += -DGREY_BUILD_S=$(BUILD_S)

.SECONDARY:
.PHONY: all
all: $(PROGRAMS) $(ARCHIVES) ## build greyd, greyctl, grey-core and grey-launch

build/mbedtls-3.6/library/libmbedtls.a:
	$(Q)deploy/mbedtls36.sh build/mbedtls-3.6

$(BUILD)/obj/%.o: %.c Makefile | $(addsuffix .packages,$(SYSROOT)) $(MBEDTLS_LIBRARY)
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

build/sysroot/%.packages: deploy/deps.sh deploy/cross/sysroot.sh
	$(Q)deploy/cross/sysroot.sh $* build/sysroot/$* && touch $@

$(BUILD)/libplatform.a: $(PLATFORM_O)
$(BUILD)/libfederation.a: $(FEDERATION_O)
$(BUILD)/libagent.a: $(AGENT_O)
$(BUILD)/liblaunch.a: $(LAUNCH_O)
$(BUILD)/libcore.a: $(CORE_O)
$(BUILD)/libctl.a: $(CTL_O)
$(BUILD)/lib%.a:
	@mkdir -p $(@D)
	$(call say,AR,$@) rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(BUILD)/greyd: $(BUILD)/obj/agent/greyd.o $(BUILD)/libagent.a $(BUILD)/liblaunch.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/greyctl: $(BUILD)/obj/agent/ctl/greyctl.o $(BUILD)/libctl.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/grey-core: $(BUILD)/obj/core/grey_core.o $(BUILD)/libcore.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/grey-launch: $(BUILD)/obj/agent/launch/grey_launch.o $(BUILD)/liblaunch.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/grey-tpm: $(BUILD)/obj/agent/identity/grey_tpm.o $(BUILD)/libagent.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/grey-update: $(BUILD)/obj/agent/slots/grey_update.o $(BUILD)/libagent.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(ARCHIVES) -lcmocka $(LIBS)
$(BUILD)/sim: $(SIM_O) $(ARCHIVES)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/week: $(WEEK_O) $(ARCHIVES)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# --- Fuzz targets: tests/fuzz/fuzz_X.c, libFuzzer with address and undefined-behaviour sanitizers, always clang. -------------------
FUZZERS := $(patsubst tests/fuzz/%.c,$(FUZZ_BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 5
FUZZ_O := $(patsubst %.c,$(FUZZ_BUILD)/obj/%.o,$(SOURCES))
$(FUZZ_BUILD)/obj/%.o: %.c Makefile | $(MBEDTLS_LIBRARY)
	@mkdir -p $(@D)
	$(call say,CC,"$< (fuzz)") clang $(CPPFLAGS) -std=c11 -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -MMD -MP -c $< -o $@
$(FUZZ_BUILD)/libfuzzed.a: $(FUZZ_O)
	$(call say,AR,$@) rm -f $@ && $(AR) rcs $@ $^
$(FUZZ_BUILD)/fuzz_%: $(FUZZ_BUILD)/obj/tests/fuzz/fuzz_%.o $(FUZZ_BUILD)/libfuzzed.a
	$(call say,LD,$@) clang -fsanitize=fuzzer,address,undefined $(LDFLAGS) -o $@ $^ -Wl,--as-needed $(LIBS)

# --- For other machines: the same rules with BOARD or ARCH set (see the top); the sysroot comes with the first object. ------------------
.PHONY: cross
cross: ## build for another machine: make cross BOARD=raspberrypi4, or ARCH=armhf
	$(Q)deploy/deps.sh build cross
	@$(MAKE) --no-print-directory all

CROSS_ARCHES := arm64 armhf
# What is not emulated, and why; all of it runs in make unit, on this machine.
CROSS_FOREIGN := attestor cage sitecert vault# start programs of the other machine by themselves, which this kernel does not run
CROSS_CALLS := apart conn conn_wire conn_session imageuser layer netwatch runs# ask for calls that the emulator does not pass on: TCP_INFO, netlink, namespaces, openat2
CROSS_SLOW := disk_errors outbox power power_core reconnect squeeze storage_faults store# take more than two minutes each
CROSS_SKIPS := $(CROSS_FOREIGN) $(CROSS_CALLS) $(CROSS_SLOW)
CROSS_SAME := state work# run by tests/cross/same.sh
CROSS_TESTS := $(filter-out $(addprefix $(BUILD)/tests/test_,$(CROSS_SKIPS) $(CROSS_SAME)),$(UNIT_TESTS))
# For every change: what can differ by processor (codecs, hashes, integers, storage, time), the states, and the site of three.  Of what is pure, not what takes
# longer than 5 s, nor decisions over numbers that the others look at.
CROSS_LONG := appraise cron ekcert entropy holding json token yaml
CROSS_ALIKE := dispatch envelope quorum updating
CROSS_MACHINE := hardware keepdb now sealdb sitelog
CROSS_BRIEF := $(filter-out $(addprefix %/test_,$(CROSS_LONG) $(CROSS_ALIKE)),$(filter $(addprefix $(BUILD)/tests/test_,$(CROSS_MACHINE) $(notdir $(basename $(PURE) $(COMPUTE)))),$(CROSS_TESTS)))
.PHONY: cross-built cross-built-brief cross-emulated cross-emulated-brief check-cross check-cross-now cross-brief cross-brief-now
cross-built: $(PROGRAMS) $(CROSS_TESTS) $(addprefix $(BUILD)/tests/test_,$(CROSS_SAME)) $(BUILD)/sim
cross-built-brief: $(PROGRAMS) $(CROSS_BRIEF) $(BUILD)/tests/test_state $(BUILD)/sim
check-cross: ## cross builds under emulation: unit tests, a site of three, the same states as here
	$(Q)deploy/deps.sh build cross test
	@$(MAKE) --no-print-directory check-cross-now
check-cross-now: $(BUILD)/tests/test_state $(BUILD)/tests/test_work $(BUILD)/sim
	@for arch in $(CROSS_ARCHES); do $(MAKE) --no-print-directory ARCH=$$arch cross-built || exit 1; done
	@echo "not emulated, for they start programs that this kernel does not run: $(CROSS_FOREIGN)"
	@echo "not emulated, for want of system calls: $(CROSS_CALLS)"
	@echo "not emulated, for time: $(CROSS_SLOW)"
	@for arch in $(CROSS_ARCHES); do echo "-- $$arch"; $(MAKE) --no-print-directory ARCH=$$arch cross-emulated || failed=1; done; [ -z "$$failed" ]
	$(Q)BUILD=$(BUILD) tests/script/tap.sh tests/cross/same.sh
	$(Q)printf '#!/bin/sh\nexec tests/bench/footprint.py --check\n' >$(BUILD)/sizes && chmod +x $(BUILD)/sizes && tests/script/tap.sh $(BUILD)/sizes
cross-emulated: cross-built
	$(Q)TEST_JOBS=$(shell nproc) RUNNER="$(RUNNER)" tests/script/tap.sh $(CROSS_TESTS)
	$(Q)EMULATOR="$(RUNNER)" BUILD=$(CURDIR)/$(BUILD) tests/script/tap.sh tests/cross/emulated_site.py
cross-brief: ## of check-cross what belongs to every change: pure and computing modules, a site of three, states
	$(Q)deploy/deps.sh build cross test
	@for arch in $(CROSS_ARCHES); do $(MAKE) --no-print-directory build/sysroot/$$arch.packages & done; wait
	@$(MAKE) --no-print-directory cross-brief-now
cross-brief-now: $(BUILD)/tests/test_state $(BUILD)/sim
	@for arch in $(CROSS_ARCHES); do $(MAKE) --no-print-directory -j$(shell nproc) ARCH=$$arch cross-built-brief || exit 1; done
	@echo "left to make check-cross: $(sort $(patsubst test_%,%,$(notdir $(filter-out $(CROSS_BRIEF) $(BUILD)/tests/test_state,$(UNIT_TESTS)))))"
	@for arch in $(CROSS_ARCHES); do echo "-- $$arch"; $(MAKE) --no-print-directory ARCH=$$arch cross-emulated-brief || failed=1; done; [ -z "$$failed" ]
	$(Q)BUILD=$(BUILD) SAME=test_state ROUNDS=2 tests/script/tap.sh tests/cross/same.sh
	$(Q)printf '#!/bin/sh\nexec tests/bench/footprint.py --check\n' >$(BUILD)/sizes && chmod +x $(BUILD)/sizes && tests/script/tap.sh $(BUILD)/sizes
cross-emulated-brief: cross-built-brief
	$(Q)TEST_JOBS=$(shell nproc) RUNNER="$(RUNNER)" tests/script/tap.sh $(CROSS_BRIEF)
	$(Q)EMULATOR="$(RUNNER)" BUILD=$(CURDIR)/$(BUILD) tests/script/tap.sh tests/cross/emulated_site.py

# --- Checks ----------------------------------------------------------------------------------------------------------------------
.PHONY: check-cuts check-faults check-vm check-vm-brief layers pure symbols hardened boards unit sim-brief sim week week-brief sim-mutants nightly fuzz-brief system system-slow format format-check lint docs-check check check-now check-all check-all-now sanitize sanitize-gcc deps
layers: ## every include line keeps to docs/ARCHITECTURE.md
	$(Q)tests/script/tap.sh tests/script/layers.sh
pure: $(call objects,$(PURE) $(COMPUTE)) ## pure objects call nothing but pure and computing ones
	$(Q)printf '#!/bin/sh\nMAY_CALL="%s" exec tests/script/pure.sh "%s" "%s"\n' "$(PURE_MAY_CALL)" "$(call objects,$(PURE))" \
	    "$(call objects,$(COMPUTE))" >$(BUILD)/pure && chmod +x $(BUILD)/pure && tests/script/tap.sh $(BUILD)/pure
symbols: $(PROGRAMS) ## no function of ours shadows one of a library
	$(Q)printf '#!/bin/sh\nexec tests/script/symbols.sh %s\n' "$(PROGRAMS)" >$(BUILD)/symbols && chmod +x $(BUILD)/symbols && tests/script/tap.sh $(BUILD)/symbols
hardened: $(PROGRAMS) ## what stands against intruders is in the programs
	$(Q)printf '#!/bin/sh\nexec tests/script/hardened.sh %s\n' "$(PROGRAMS)" >$(BUILD)/hardened && chmod +x $(BUILD)/hardened && tests/script/tap.sh $(BUILD)/hardened
# They wait more than they reckon: some at a time.
UNIT_JOBS ?= 4
unit: $(UNIT_TESTS) $(BUILD)/grey-tpm ## unit tests
	$(Q)TEST_JOBS=$(UNIT_JOBS) tests/script/tap.sh $(UNIT_TESTS)
ifneq ($(wildcard tests/sim/sim.c),)
NIGHTLY_SEED ?= 1
NIGHTLY_COUNT ?= 100000
NIGHTLY_WEEKS ?= 100
NIGHTLY_OFFLINE_WEEKS ?= 2000
WEEK_BRIEF ?= --seed 1 --count 16 --hours 72 --recheck --cover
SIM_BRIEF ?= --seed 1 --count 250 --minutes 2 --recheck --cover
sim: $(BUILD)/sim ## the deterministic simulator of the consensus core: build/sim --help
	$(Q)ln -sfn $(patsubst build/%,%,$(BUILD))/sim build/sim
week: $(BUILD)/week ## simulated weeks offline: build/week --help
	$(Q)ln -sfn $(patsubst build/%,%,$(BUILD))/week build/week
week-brief: $(BUILD)/week ## some of three days each
	$(Q)printf '#!/bin/sh\nif $(BUILD)/week $(WEEK_BRIEF); then echo "ok 1 - simulated weeks lose nothing in silence"; else echo "not ok 1 - see the seed above"; fi\n' >$(BUILD)/week-brief && chmod +x $(BUILD)/week-brief && tests/script/tap.sh $(BUILD)/week-brief
sim-mutants: $(BUILD)/sim $(BUILD)/week ## known bugs put back, each to be found; some: make sim-mutants MUTANTS="04 12"
	$(Q)CC="$(CC)" tests/mutants/run.sh $(BUILD) $(MUTANTS)
nightly: $(BUILD)/sim $(BUILD)/week ## 100,000 seeds of 10 minutes, 100 of a week, 2,000 weeks offline, and the known bugs
	$(BUILD)/sim --seed $(NIGHTLY_SEED) --count $(NIGHTLY_COUNT) --minutes 10 --recheck
	$(BUILD)/sim --seed $(NIGHTLY_SEED) --count $(NIGHTLY_WEEKS) --hours 168
	$(BUILD)/week --seed $(NIGHTLY_SEED) --count $(NIGHTLY_OFFLINE_WEEKS) --recheck --cover
	$(Q)$(MAKE) --no-print-directory sim-mutants system-slow sanitize-gcc check-vm check-deb check-install check-cross
	$(Q)$(MAKE) --no-print-directory check-cuts CUTS=3000
	$(Q)$(MAKE) --no-print-directory check-faults
sim-brief: $(BUILD)/sim ## a few hundred seeds of it
	$(Q)printf '#!/bin/sh\nif $(BUILD)/sim $(SIM_BRIEF); then echo "ok 1 - simulated clusters keep every law"; else echo "not ok 1 - see the seed above"; fi\n' >$(BUILD)/sim-brief && chmod +x $(BUILD)/sim-brief && tests/script/tap.sh $(BUILD)/sim-brief
else
sim-brief week-brief:
endif
fuzz-brief: $(FUZZERS) ## each fuzz target for FUZZ_SECONDS
	$(Q)printf '#!/bin/sh\nexec tests/script/fuzz.sh %s\n' "$(FUZZ_SECONDS) $(FUZZERS)" >$(FUZZ_BUILD)/fuzz-brief && chmod +x $(FUZZ_BUILD)/fuzz-brief && \
	    tests/script/tap.sh $(FUZZ_BUILD)/fuzz-brief
# Tests that wait for minutes by the clock (a breaker that closes, a link that is idle); of these make nightly takes care.
SLOW_TESTS := test_core_gone test_core_moves test_expiry test_idle_link test_middlebox test_stuck_disk
# The same, but these are many processes each: three at a time.
SYSTEM_JOBS ?= 3
SYSTEM_TESTS := $(sort $(wildcard tests/system/test_*.py))
system: $(PROGRAMS) $(BUILD)/swarm $(BUILD)/tests/test_appraise $(BUILD)/sim ## end-to-end tests with real processes; one: make system TESTS=test_restarts
	$(Q)BUILD=$(CURDIR)/$(BUILD) TEST_JOBS=$(SYSTEM_JOBS) tests/script/tap.sh $(patsubst %,tests/system/%.py,$(or $(TESTS),$(filter-out $(SLOW_TESTS),$(notdir $(SYSTEM_TESTS:.py=)))))
system-slow: $(PROGRAMS) $(BUILD)/swarm ## those that wait for minutes
	$(Q)BUILD=$(CURDIR)/$(BUILD) tests/script/tap.sh $(patsubst %,tests/system/%.py,$(SLOW_TESTS))
# Control groups of version 2 in an emulated machine: the reference machine has version 1.  The brief form belongs to every change; the long one,
# with sites of three, images and a kernel of 70 MB, is for the night.
check-vm-brief: $(PROGRAMS) $(BUILD)/tests/test_cage $(BUILD)/tests/test_apart ## bounds, namespaces and a task that is killed, under cgroup v2 (qemu)
	$(Q)printf '#!/bin/sh\nexec tests/vm/brief.sh $(BUILD)\n' >$(BUILD)/check-vm-brief && chmod +x $(BUILD)/check-vm-brief && TEST_TIMEOUT=900 tests/script/tap.sh $(BUILD)/check-vm-brief
check-vm: $(PROGRAMS) $(BUILD)/tests/test_cage ## tasks under cgroup v2, in an emulated machine (qemu)
	$(Q)deploy/deps.sh vm
	$(Q)printf '#!/bin/sh\nexec tests/vm/run.sh $(BUILD)\n' >$(BUILD)/check-vm && chmod +x $(BUILD)/check-vm && TEST_TIMEOUT=1200 tests/script/tap.sh $(BUILD)/check-vm
# What differs between the two mbedTLS: certificates, keys, handshakes, and two sites.
TLS_UNITS := cert csr keys cipher digest ekcert conn conn_session conn_proxy authority http vault vouch sitecert
TLS_SYSTEM := test_tls13 test_tpm_keys
.PHONY: mbedtls36 mbedtls36-built mbedtls36-now
# Compiled in a hurry and on all processors: it is about what the code does, and CI waits for it.
mbedtls36: ## what uses TLS, built and tested with mbedTLS 3.6 of Debian 13; all of it: make check MBEDTLS=3.6
	$(Q)deploy/deps.sh build run test
	@$(MAKE) --no-print-directory -j$(shell nproc) MBEDTLS=3.6 CFLAGS=-O2 mbedtls36-built
	@$(MAKE) --no-print-directory MBEDTLS=3.6 CFLAGS=-O2 mbedtls36-now
mbedtls36-built: $(addprefix $(BUILD)/,greyd greyctl grey-core grey-tpm) $(addprefix $(BUILD)/tests/test_,$(TLS_UNITS))
mbedtls36-now: mbedtls36-built
	$(Q)tests/script/tap.sh $(addprefix $(BUILD)/tests/test_,$(TLS_UNITS))
	$(Q)BUILD=$(CURDIR)/$(BUILD) TEST_JOBS=$(SYSTEM_JOBS) tests/script/tap.sh $(patsubst %,tests/system/%.py,$(TLS_SYSTEM))
# Boundaries that are tried of some thousands; 0: all.
CUTS ?= 150
check-cuts: $(PROGRAMS) ## the power is cut at the boundaries of writes below the file system (CUTS of them)
	$(Q)deploy/deps.sh cuts
	$(Q)printf '#!/bin/sh\nexec tests/cuts/cuts.sh $(BUILD) $(CUTS)\n' >$(BUILD)/check-cuts && chmod +x $(BUILD)/check-cuts && TEST_TIMEOUT=14400 tests/script/tap.sh $(BUILD)/check-cuts
# docs/STORAGE.md says what each stands for.
FAULT_UNITS := power power_core disk_errors wholefile slots salvage snapshot
KILLS ?= 3000
check-faults: $(PROGRAMS) $(UNIT_TESTS) ## the power is cut at each file call, each call to a disk and each allocation fails, gateways are killed thousands of times
	$(Q)GREY_CUTS=all TEST_TIMEOUT=14400 tests/script/tap.sh $(addprefix $(BUILD)/tests/test_,$(FAULT_UNITS))
	$(Q)GREY_KILLS=$(KILLS) GREY_STEPS=1000 BUILD=$(CURDIR)/$(BUILD) TEST_TIMEOUT=14400 NOTES=1 tests/script/tap.sh $(patsubst %,tests/system/test_%.py,killed_often killed_anywhere scarce_memory)
	$(Q)printf '#!/bin/sh\nexec tests/scarce/scarce.py $(BUILD) 40\n' >$(BUILD)/check-scarce && chmod +x $(BUILD)/check-scarce && NOTES=1 TEST_TIMEOUT=36000 tests/script/tap.sh $(BUILD)/check-scarce
boards: $(BUILD)/greyd $(BUILD)/grey-update ## each folder of boards/ is whole, greyd takes its profile, and what chooses a slot and enrols in an image is right
	$(Q)printf '#!/bin/sh\nexec tests/script/boards.sh $(BUILD)\n' >$(BUILD)/boards && chmod +x $(BUILD)/boards && BUILD=$(BUILD) tests/script/tap.sh $(BUILD)/boards tests/script/slots.sh tests/script/enrol.sh tests/script/starts.sh
docs-check: $(PROGRAMS) ## generated tables in docs/ are in step with the code
	$(Q)printf '#!/bin/sh\nexec tests/script/docs.sh $(BUILD)\n' >$(BUILD)/docs-check && chmod +x $(BUILD)/docs-check && tests/script/tap.sh $(BUILD)/docs-check
# One compiler's sanitizers belong to every change: the other's find the same at the price of another build (make nightly).
sanitize: ## unit tests under clang's sanitizers of addresses, leaks and undefined behaviour
	$(Q)$(MAKE) --no-print-directory CC=clang SAN=address,undefined unit
sanitize-gcc: ## the same under gcc's
	$(Q)$(MAKE) --no-print-directory SAN=address,undefined unit
format: ## lay out all sources with clang-format
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h')
format-check:
	$(Q)printf '#!/bin/sh\nif clang-format --dry-run -Werror $$(git ls-files "*.c" "*.h"); then echo "ok 1 - every source is laid out by .clang-format"; else echo "not ok 1 - run make format"; fi\n' \
	    >$(BUILD)/format-check && chmod +x $(BUILD)/format-check && tests/script/tap.sh $(BUILD)/format-check
lint: ## clang-tidy and cppcheck
	$(Q)tests/script/lint.sh $(SOURCES) $(MAINS)
deps: ## install what building, running and testing need (apt)
	$(Q)deploy/deps.sh build run test

# Each part adds its counts to the tally; the last line is the sum.  A part that fails without a failed test, because it could not be
# built, counts as one failure.
CHECK_PARTS := format-check layers pure symbols hardened boards docs-check unit sim-brief week-brief fuzz-brief system check-vm-brief
# All of the emulated tests take ten minutes more than CI has.
ALL_PARTS := sanitize lint check-cuts packages $(if $(CI),cross-brief,check-cross) mbedtls36
define run_parts
	@tally=$$(mktemp) && export TALLY=$$tally && for part in $(1); do echo "== $$part"; before=$$(wc -l <$$tally); \
	    $(MAKE) --no-print-directory $$part || awk -v before=$$before 'NR > before {f += $$2} END {exit f == 0}' $$tally || echo "0 1 $$part did not end by itself" >>$$tally; done; \
	awk '{p += $$1; f += $$2} $$2 > 0 {sub(/^[0-9]+ [0-9]+ /, ""); print "  failed: " $$0} END {printf "%d passed, %d failed\n", p, f; exit f > 0}' $$tally; status=$$?; rm -f $$tally; exit $$status
endef
# A fresh machine has no compiler yet when this file is read first: what needs one is read anew, once `deps` has run.
check: deps ## all tests that belong to every change; ends with "N passed, N failed"
	@$(MAKE) --no-print-directory check-now
check-all: deps ## check, then sanitizers, lint, power cuts, packages, ARM under emulation and the other mbedTLS
	@$(MAKE) --no-print-directory check-all-now
check-now: all
	$(call run_parts,$(CHECK_PARTS))
check-all-now: all
	$(call run_parts,$(CHECK_PARTS) $(ALL_PARTS))

# --- Running -----------------------------------------------------------------------------------------------------------------------
.PHONY: up up-now down clean-run bench bench-now install
up: ## start a site of three gateways, a broker and a core on this machine; see README.md
	$(Q)deploy/deps.sh build run
	$(Q)deploy/deps.sh tpm || echo "software TPMs could not be installed: see below what that means"
	@$(MAKE) --no-print-directory up-now
up-now: all
	$(Q)BUILD=$(CURDIR)/$(BUILD) deploy/local/start-cluster.sh
	$(Q)BUILD=$(CURDIR)/$(BUILD) deploy/local/first-steps.sh
down: ## stop what `make up` started; the data stays in run/
	$(Q)BUILD=$(CURDIR)/$(BUILD) deploy/local/stop-cluster.sh
clean-run: down ## and remove its data
	rm -rf run
bench: ## measure, beside etcd and the limits of this machine: docs/BENCHMARKS.md
	$(Q)deploy/deps.sh build run bench
	@$(MAKE) --no-print-directory bench-now
bench-now: all $(addprefix $(BUILD)/,load machine inflight swarm placing sim $(if $(wildcard /usr/include/raft/uv.h),raft_peer))
	$(Q)BUILD=$(CURDIR)/$(BUILD) tests/bench/bench.py
.PHONY: footprint
footprint: all ## sizes, libraries and memory of greyd on every board: docs/FOOTPRINT.md
	$(Q)deploy/deps.sh build cross
	@for board in $(patsubst boards/%/build.mk,%,$(wildcard boards/*/build.mk)); do $(MAKE) --no-print-directory BOARD=$$board all || exit 1; done
	$(Q)tests/bench/footprint.py
$(BUILD)/load $(BUILD)/machine: $(BUILD)/%: $(BUILD)/obj/tests/bench/%.o
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< -lsqlite3 -pthread
$(BUILD)/inflight $(BUILD)/swarm $(BUILD)/placing: $(BUILD)/%: $(BUILD)/obj/tests/bench/%.o $(ARCHIVES)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/raft_peer: $(BUILD)/obj/tests/bench/raft_peer.o
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< -lraft -luv
DESTDIR ?=
PREFIX ?= /usr
install: all ## staged install: make install DESTDIR=...
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man5 $(DESTDIR)$(PREFIX)/share/man/man8
	install -m 0755 $(PROGRAMS) $(DESTDIR)$(PREFIX)/bin/
	for page in docs/man/*; do install -m 0644 $$page $(DESTDIR)$(PREFIX)/share/man/man$${page##*.}/; done
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/vendor-completions fish/vendor_completions.d)
	$(BUILD)/greyctl completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/greyctl
	$(BUILD)/greyctl completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/vendor-completions/_greyctl
	$(BUILD)/greyctl completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/greyctl.fish

# --- Debian packages: docs/INSTALL.md says what they do, deploy/debian/build.sh how they are made. ---------------------------------
.PHONY: deb deb-now check-deb check-install packages
DEBS := $(BUILD)/deb
$(BUILD)/completion/%: $(BUILD)/greyctl
	@mkdir -p $(@D)
	$(call say,GEN,$@) $(RUNNER) $< completion $* >$@
deb: ## Debian packages in build/<arch>/deb: make deb ARCH=amd64|arm64|armhf
	$(Q)deploy/deps.sh build $(if $(SYSROOT),cross)
	@$(MAKE) --no-print-directory deb-now
deb-now: all $(addprefix $(BUILD)/completion/,bash zsh fish)
	$(Q)STRIP=$(or $(STRIP),$(patsubst %,%-,$(TRIPLE))strip) deploy/debian/build.sh $(ARCH) $(BUILD) $(VERSION) $(DEBS)
packages: deb ## the same over this machine's root: nothing to download, so `make check-all` can afford it
	$(Q)deploy/deps.sh package
	$(Q)BUILD=$(BUILD) VERSION=$(VERSION) ROOT=machine tests/script/tap.sh tests/script/packages.sh
check-deb: deb ## packages: lintian, same bytes twice, install, upgrade, remove and purge in a clean Debian root (as root)
	$(Q)deploy/deps.sh package
	$(Q)BUILD=$(BUILD) VERSION=$(VERSION) TEST_TIMEOUT=1800 tests/script/tap.sh tests/script/packages.sh
# Emulated, so it takes the better part of an hour; the base of the machines is made once.
INSTALL_NEWER := $(VERSION).1
check-install: deb ## docs/INSTALL.md typed into four machines with a real systemd: core, three gateways, upgrade, updates, power cuts (qemu, as root)
	$(Q)deploy/deps.sh vm install
	$(Q)STRIP=strip deploy/debian/build.sh $(ARCH) $(BUILD) $(INSTALL_NEWER) build/install/newer >/dev/null
	$(Q)tests/install/base.sh $(DEBS)
	$(Q)printf '#!/bin/sh\nBUILD=$(CURDIR)/$(BUILD) exec tests/install/by_the_book.py $(DEBS) build/install/newer $(VERSION) $(INSTALL_NEWER)\n' >$(BUILD)/check-install && chmod +x $(BUILD)/check-install && \
	    NOTES=1 TEST_TIMEOUT=9000 tests/script/tap.sh $(BUILD)/check-install

# --- Images: deploy/image/build.sh says what is in them. -----------------------------------------------------------------------------
.PHONY: image image-now check-image check-image-now
IMAGE := build/image/$(BOARD)
image: ## bootable disk of a board in build/image/<board>: make image BOARD=qemu-arm64 [SEED=folder of its data partition]
	$(Q)deploy/deps.sh build image $(if $(SYSROOT),cross)
	@$(MAKE) --no-print-directory image-now
image-now: deb-now
	$(Q)TRIPLE=$(TRIPLE) deploy/image/build.sh $(BOARD) $(ARCH) $(DEBS) $(IMAGE) $(SEED)
check-image: ## look at it, boot it three times in qemu-system and make a site of them, with a core here: make check-image BOARD=qemu-arm64
	$(Q)deploy/deps.sh build image $(if $(SYSROOT),cross)
	@$(MAKE) --no-print-directory check-image-now
# A board that qemu has becomes a site; a Raspberry Pi 4 it has not, so its image is started as far as that of a 3 B can be.
IMAGE_STARTS := $(if $(filter qemu-% generic-amd64,$(BOARD)),image_site,$(if $(filter raspi arm64,$(shell sed -n 's/^BOOT := //p' boards/$(BOARD)/image.mk) $(ARCH)),image_pi))
check-image-now: image-now
	@env -u ARCH -u BOARD MAKEFLAGS= MAKEOVERRIDES= $(MAKE) --no-print-directory $(addprefix build/$(MACHINE)/,grey-core greyctl grey-update)
	$(Q)printf '#!/bin/sh\nexec tests/script/image.sh $(BOARD) $(ARCH) $(IMAGE)\n' >$(BUILD)/image-files && chmod +x $(BUILD)/image-files
	$(Q)for test in $(IMAGE_STARTS); do printf '#!/bin/sh\nBUILD=$(CURDIR)/build/$(MACHINE) exec tests/system/%s.py $(BOARD) $(ARCH) $(CURDIR)/$(IMAGE)\n' $$test >$(BUILD)/check-image && chmod +x $(BUILD)/check-image; done; \
	    NOTES=1 TEST_TIMEOUT=1800 tests/script/tap.sh $(BUILD)/image-files $(if $(IMAGE_STARTS),$(BUILD)/check-image)

.PHONY: clean help
clean: ## remove build/
	rm -rf build
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-zA-Z_-]*:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

-include $(shell find build \( -path build/sysroot -o -path build/packages -o -path build/install -o -path build/image -o -path build/mbedtls-3.6 \) -prune -o -name '*.d' -type f -print 2>/dev/null)

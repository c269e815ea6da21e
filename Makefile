# Grey Edge.  `make help` lists the targets; `make V=1` shows the commands; `make CC=clang`; `make SAN=address,undefined`.
# One build, not recursive, out of tree in build/<arch>[-variant]/.

CC ?= gcc
ifeq ($(origin CC),default)
CC := gcc
endif
VERSION := 0.1.0
ARCH := $(patsubst x86_64%,amd64,$(patsubst aarch64%,arm64,$(patsubst arm-%,armhf,$(shell $(CC) -dumpmachine))))
comma := ,
VARIANT := $(if $(findstring clang,$(CC)),-clang)$(if $(SAN),-$(subst $(comma),-,$(SAN)))
BUILD ?= build/$(ARCH)$(VARIANT)
V ?= 0
Q := $(if $(filter 1,$(V)),,@)
say = $(if $(filter 1,$(V)),,@printf '  %-7s %s\n' $(1) $(2);)

WARN := -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Werror
CFLAGS ?= -O2 -g
CPPFLAGS += -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_TIME_BITS=64 -DGREY_VERSION='"$(VERSION)"'
HARDEN := -fstack-protector-strong -fPIE $(if $(SAN),,-D_FORTIFY_SOURCE=2)
ALL_CFLAGS = -std=c11 $(WARN) $(HARDEN) $(CFLAGS) $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALL_LDFLAGS = -pie -Wl,-z,relro,-z,now -Wl,--as-needed $(LDFLAGS) $(if $(SAN),-fsanitize=$(SAN))
LIBS_BASE := -lcbor -llz4 -lz -lsodium -lyaml -ljansson -lsqlite3 -lmbedtls -lmbedx509 -lmbedcrypto -lhttp_parser -pthread
LIBS := $(LIBS_BASE)

# --- What is where.  A main program's file is not in its folder's archive. ------------------------------------------------------
MAINS := agent/greyd.c agent/ctl/greyctl.c core/grey_core.c
SOURCES := $(filter-out $(MAINS),$(wildcard platform/*.c federation/*.c federation/raft/*.c agent/*.c agent/ctl/*.c core/*.c))
objects = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
PLATFORM_O := $(call objects,$(filter platform/%,$(SOURCES)))
FEDERATION_O := $(call objects,$(filter federation/%,$(SOURCES)))
CTL_O := $(call objects,$(filter agent/ctl/%,$(SOURCES)))
AGENT_O := $(call objects,$(filter-out agent/ctl/%,$(filter agent/%,$(SOURCES))))
CORE_O := $(call objects,$(filter core/%,$(SOURCES)))
ARCHIVES := $(BUILD)/libctl.a $(BUILD)/libagent.a $(BUILD)/libcore.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
PROGRAMS := $(addprefix $(BUILD)/,$(if $(wildcard agent/greyd.c),greyd) $(if $(wildcard agent/ctl/greyctl.c),greyctl) \
            $(if $(wildcard core/grey_core.c),grey-core))
UNIT_TESTS := $(patsubst tests/unit/%.c,$(BUILD)/tests/%,$(wildcard tests/unit/test_*.c))
SIM_O := $(call objects,$(wildcard tests/sim/*.c))

# Pure modules: no system call, no clock, no allocator but platform/bytes (docs/ARCHITECTURE.md).  COMPUTE: what they may use below.
COMPUTE := platform/bytes.c platform/fault.c platform/codec.c platform/json.c platform/yaml.c platform/compress.c platform/digest.c \
           platform/keys.c platform/cert.c
PURE := $(filter federation/%,$(SOURCES)) \
        $(filter $(addprefix agent/,intake.c state.c kv.c outbox.c dedup.c table.c tasks.c quota.c schedule.c ring.c),$(SOURCES))
PURE_MAY_CALL := memcpy memmove memset memcmp strlen strcmp strncmp memchr __stack_chk_fail __memcpy_chk __memset_chk __memmove_chk \
                 must_failed _GLOBAL_OFFSET_TABLE_

.SECONDARY:
.PHONY: all
all: $(PROGRAMS) $(ARCHIVES) ## build greyd, greyctl and grey-core

$(BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,$<) $(CC) $(CPPFLAGS) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libplatform.a: $(PLATFORM_O)
$(BUILD)/libfederation.a: $(FEDERATION_O)
$(BUILD)/libagent.a: $(AGENT_O)
$(BUILD)/libcore.a: $(CORE_O)
$(BUILD)/libctl.a: $(CTL_O)
$(BUILD)/lib%.a:
	@mkdir -p $(@D)
	$(call say,AR,$@) rm -f $@ && $(AR) rcs $@ $(filter %.o,$^)

$(BUILD)/greyd: $(BUILD)/obj/agent/greyd.o $(BUILD)/libagent.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/greyctl: $(BUILD)/obj/agent/ctl/greyctl.o $(BUILD)/libctl.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)
$(BUILD)/grey-core: $(BUILD)/obj/core/grey_core.o $(BUILD)/libcore.a $(BUILD)/libfederation.a $(BUILD)/libplatform.a
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/tests/%: $(BUILD)/obj/tests/unit/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $< $(ARCHIVES) -lcmocka $(LIBS)
$(BUILD)/sim: $(SIM_O) $(ARCHIVES)
	$(call say,LD,$@) $(CC) $(ALL_CFLAGS) $(ALL_LDFLAGS) -o $@ $^ $(LIBS)

# --- Fuzz targets: tests/fuzz/fuzz_X.c, libFuzzer with address and undefined-behaviour sanitizers, always clang. -------------------
FUZZ_BUILD := build/$(ARCH)-fuzz
FUZZERS := $(patsubst tests/fuzz/%.c,$(FUZZ_BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
FUZZ_SECONDS ?= 5
FUZZ_O := $(patsubst %.c,$(FUZZ_BUILD)/obj/%.o,$(SOURCES))
$(FUZZ_BUILD)/obj/%.o: %.c Makefile
	@mkdir -p $(@D)
	$(call say,CC,"$< (fuzz)") clang $(CPPFLAGS) -std=c11 -O1 -g -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all -MMD -MP -c $< -o $@
$(FUZZ_BUILD)/libfuzzed.a: $(FUZZ_O)
	$(call say,AR,$@) rm -f $@ && $(AR) rcs $@ $^
$(FUZZ_BUILD)/fuzz_%: $(FUZZ_BUILD)/obj/tests/fuzz/fuzz_%.o $(FUZZ_BUILD)/libfuzzed.a
	$(call say,LD,$@) clang -fsanitize=fuzzer,address,undefined -o $@ $^ -Wl,--as-needed $(LIBS)

# --- Checks ----------------------------------------------------------------------------------------------------------------------
.PHONY: layers pure unit fuzz-brief sim-brief system format format-check lint
layers: ## every include line keeps to docs/ARCHITECTURE.md
	$(Q)tests/script/layers.sh
pure: $(call objects,$(PURE) $(COMPUTE)) ## pure objects call nothing but pure and computing ones
	$(Q)MAY_CALL="$(PURE_MAY_CALL)" tests/script/pure.sh "$(call objects,$(PURE))" "$(call objects,$(COMPUTE))"
unit: $(UNIT_TESTS) ## unit tests
	$(Q)tests/script/tap.sh $(UNIT_TESTS)
fuzz-brief: $(FUZZERS) ## each fuzz target for FUZZ_SECONDS
	$(Q)tests/script/fuzz.sh $(FUZZ_SECONDS) $(FUZZERS)
format: ## lay out all sources with clang-format
	$(Q)clang-format -i $$(git ls-files '*.c' '*.h')
format-check:
	$(Q)clang-format --dry-run -Werror $$(git ls-files '*.c' '*.h')

.PHONY: clean help
clean: ## remove build/
	rm -rf build
help: ## this list
	@awk -F':.*## ' '/^[a-z][a-zA-Z_-]*:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

-include $(shell find build -name '*.d' 2>/dev/null)

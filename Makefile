# SPDX-License-Identifier: LGPL-2.1-only
# The words people expect; meson and ninja do the work.
BUILD ?= build
prefix ?= /usr/local
MAKEFLAGS += --no-print-directory

.PHONY: all check check-lab lab demo bench fuzz soak asan soak-disk tsan lint install uninstall clean distclean deps

# A prefix that is given counts at any time, not only when the build folder is made. What is given, DESTDIR too, is in
# the environment of the recipes, where blanks do no harm.
given = $(filter command environment,$(origin prefix))
set_prefix = [ -z "$(given)" ] || [ "$${prefix%/}" = "$$(sed -n 's/.*"name": "prefix", "value": "\([^"]*\)".*/\1/p' \
	"$(BUILD)/meson-info/intro-buildoptions.json")" ] || meson configure "$(BUILD)" -Dprefix="$$prefix"

all: $(BUILD)/build.ninja
	@$(set_prefix)
	@ninja -C $(BUILD)

$(BUILD)/build.ninja:
	@scripts/install-deps build
	@meson setup $(BUILD) --prefix="$(prefix)"

# A build folder that was made without the tests' packages has no tests: from here on they are demanded.
$(BUILD)/with-tests: $(BUILD)/build.ninja
	@scripts/install-deps test
	@meson setup --reconfigure -Dtests=enabled $(BUILD) >/dev/null
	@touch $@

check: $(BUILD)/with-tests
	@scripts/install-deps test
	@ninja -C $(BUILD)
	@tests/xensim/fetch-stock
	@scripts/run-check $(BUILD)

check-lab: all
	@scripts/install-deps lab
	@tests/lab/run-check-lab

lab: all
	@scripts/install-deps lab
	@tests/lab/lab up && tests/lab/lab push

demo:
	@[ "$$(id -u)" = 0 ] || { echo "demo: packages, namespaces and QEMU need root: run 'sudo make demo'" >&2; exit 1; }
	@scripts/install-deps build lab
	@$(MAKE) all
	@tests/lab/demo

# LAB=1 adds the pause on two real Xen hosts, next to the stock xl: some minutes
bench: all
	@scripts/install-deps bench
	@tests/xensim/fetch-stock
	@tests/bench/run $(BUILD)
	@[ -z "$(LAB)" ] || { scripts/install-deps lab && LAB=bench tests/lab/run-check-lab pause; }

fuzz:
	@scripts/install-deps fuzz
	@scripts/run-fuzz

soak: $(BUILD)/with-tests
	@scripts/install-deps test
	@ninja -C $(BUILD)
	@scripts/run-soak $(BUILD)

asan:
	@scripts/install-deps test
	@test -f build-asan/build.ninja || meson setup build-asan -Dtests=enabled -Db_sanitize=address,undefined -Db_lundef=false
	@ninja -C build-asan
	@scripts/run-check build-asan

tsan:
	@scripts/install-deps test
	@test -f build-tsan/build.ninja || meson setup build-tsan -Dtests=enabled -Db_sanitize=thread -Db_lundef=false
	@ninja -C build-tsan
	@scripts/run-check build-tsan

soak-disk: $(BUILD)/with-tests
	@scripts/install-deps test
	@ninja -C $(BUILD)
	@tests/disk/soak $(BUILD)

lint:
	@scripts/install-deps lint
	@scripts/lint

whole_destdir = case $$DESTDIR in "" | /*) ;; *) DESTDIR=$$PWD/$$DESTDIR ;; esac

install: all
	@$(whole_destdir); export DESTDIR; meson install -C $(BUILD) --no-rebuild --quiet

# What the last install from this build folder wrote, wherever that was; another DESTDIR is refused.
uninstall:
	@$(whole_destdir); first=$$(sed -n '/^#/!{p;q}' "$(BUILD)/meson-logs/install-log.txt" 2>/dev/null); \
	case $$first in \
		"") echo "uninstall: nothing was installed from $(BUILD)" >&2; exit 1 ;; \
		"$${DESTDIR%/}"/*) ;; \
		*) echo "uninstall: the last install wrote $$first, not below $$DESTDIR" >&2; exit 1 ;; \
	esac
	@ninja -C $(BUILD) uninstall

clean:
	@rm -rf build build-*

distclean: clean
	@tests/lab/lab down --all 2>/dev/null || true
	@rm -rf .cache

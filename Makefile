# Thin: Meson does the work. Each target stands alone on a fresh Debian 12 machine (.ci/setup installs what is missing).
PREFIX ?= /usr/local
ABSOLUTE_PREFIX = $(shell realpath -ms -- "$(PREFIX)")
BUILD ?= build
PYTHON ?= /usr/bin/python3
MINUTES ?= 35
export PYTHONDONTWRITEBYTECODE = 1
SETUP = .ci/setup
SOURCES = $(shell git ls-files '*.c' '*.h' 2>/dev/null || find shm formats tracer analyzer tests benchmarks -name '*.[ch]')

.PHONY: all demo test install bench format check-format clean help

all:
	@$(SETUP) test
	@.ci/build $(BUILD)

help:
	@echo "make demo                 build, record a small service, show where its memory went"
	@echo "make test                 build and run every test; the last line is 'N passed, N failed'"
	@echo "make install PREFIX=DIR   programs, agent, Python package, man pages (default /usr/local)"
	@echo "make bench [MINUTES=35] [ARGS='--programs --mode full']"
	@echo "                          what recording costs: programs, applications, peers, the hot path (benchmarks/README.md)"
	@echo "make format               clang-format over the sources; make check-format only looks"

demo:
	@$(SETUP) build
	@.ci/build $(BUILD)/demo -Dtests=false
	@PYTHON=$(PYTHON) tests/demo/run $(BUILD)/demo

test:
	@$(SETUP) test
	@.ci/build $(BUILD)
	@$(PYTHON) tests/run.py $(BUILD)

# In a build directory of its own: a prefix is part of the configuration.
install:
	@$(SETUP) build
	@.ci/build $(BUILD)/install --prefix="$(ABSOLUTE_PREFIX)" --libdir=lib -Dtests=false
	@meson install -C $(BUILD)/install --no-rebuild --quiet
	@echo "installed in $(ABSOLUTE_PREFIX); the program is $(ABSOLUTE_PREFIX)/bin/memlyze, the Python package is in $(ABSOLUTE_PREFIX)/share/memlyze/python (PYTHONPATH)"

# Says what it will do and how long; the runs are kept in $(BUILD)/bench/report.json.
bench:
	@$(SETUP) bench
	@.ci/build $(BUILD)/bench -Dtests=false
	@$(PYTHON) benchmarks/run.py $(BUILD)/bench --python $(PYTHON) --minutes $(MINUTES) --json $(BUILD)/bench/report.json $(ARGS)
ifeq ($(ARGS),)
	@ninja --quiet -C $(BUILD)/bench benchmarks/traces/make_large benchmarks/native/churn benchmarks/native/bench_capture benchmarks/agent/bench_usage
	@$(PYTHON) benchmarks/traces.py $(BUILD)/bench --turns 3
	@$(PYTHON) benchmarks/native/run.py $(BUILD)/bench --rounds 5
	@$(BUILD)/bench/benchmarks/native/bench_capture
endif

format:
	@$(SETUP) format
	@clang-format -i $(SOURCES)

check-format:
	@$(SETUP) format
	@clang-format --dry-run --Werror $(SOURCES) && echo "format: fine"

clean:
	rm -rf $(BUILD)

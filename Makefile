# Thin: each target sets up what it needs (scripts/setup.sh) and then lets cargo and CMake work.
#
#   make demo      builds the library and continues a famous text with examples/generate.cpp
#   make test      every check there is
#   make bench     the benchmarks: limits of the machine, kernels, whole models (written to target/ the first time, 18 GB);
#                  BENCH="gpt2 --quick --json FILE" for some of them, BENCH=--list for their names
#   make install   PREFIX=/usr/local, DESTDIR= for packagers
PREFIX = /usr/local
DESTDIR =
BUILD = build
BENCH =
MODEL = examples/models/fourscore
PROMPT = Four score and seven years ago

CARGO = cargo
JOBS = $(shell nproc 2>/dev/null || echo 2)
CMAKE_CONFIGURE = cmake -S . -B $(BUILD) -DENGINE_CARGO_TARGET_DIR=$(CURDIR)/target -DCMAKE_INSTALL_PREFIX=$(PREFIX)
CMAKE_BUILD = cmake --build $(BUILD) --parallel $(JOBS)

# The makefiles that CMake writes are run from here: no word about entering and leaving each.
MAKEFLAGS += --no-print-directory

.PHONY: demo test bench install setup setup-test test-rust test-c test-package

demo: setup
	@$(CMAKE_CONFIGURE) >/dev/null
	@$(CMAKE_BUILD) --target example_generate_cpp
	$(BUILD)/examples/generate_cpp $(MODEL) "$(PROMPT)"

test: test-rust test-c test-package
	@echo "make test: everything passed"

bench: setup
	$(CARGO) bench --locked --bench bench -- $(BENCH)

install: setup
	$(CMAKE_CONFIGURE)
	$(CMAKE_BUILD) --target engine_libs
	DESTDIR="$(DESTDIR)" cmake --install $(BUILD)

setup:
	@scripts/setup.sh build
setup-test:
	@scripts/setup.sh test

# `cargo test` builds examples/generate.rs too. The header's drift is checked by tests/header.rs.
test-rust: setup-test
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked
	tests/examples.sh generate target/debug/examples/generate
	$(CARGO) test --locked --no-default-features --lib

test-c: setup-test
	$(CMAKE_CONFIGURE)
	$(CMAKE_BUILD)
	ctest --test-dir $(BUILD) --parallel $(JOBS) --output-on-failure

test-package: test-c
	tests/package.sh $(BUILD)

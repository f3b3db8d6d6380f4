# Two commands on a fresh machine with Python >= 3.11 (with venv), a C compiler and make:
#
#     make demo      build it and watch it run: no keys, no network
#     make test      build it with the development tools and run the tests
#
# Both make an editable install in .venv. After a change of a .pyx or .h file the next
# import builds it again; that calls the venv's ninja and cython, so put .venv/bin on PATH.

VENV ?= .venv
PYTHON ?= python3.13 python3.12 python3.11 python3
ARGS ?=
JOBS ?= 4
FUZZ_S ?= 60

BIN := $(VENV)/bin
BUILD := build/$(patsubst .%,%,$(notdir $(VENV)))
SOURCES := src/piker_core src/providers
COMPILED := rings ticks fold engine triggers
FUZZED := attach frames answers config journal orders
export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install develop demo test lint types fuzz wheel bench clean
.DELETE_ON_ERROR:
.SUFFIXES:

help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## make demo     a simulated venue, its feed, the rings and a reader, live
demo: install
	$(BIN)/piker-core demo $(ARGS)

## make test     the test suite     (ARGS='-k rings' picks; JOBS=0 for one process)
test: develop
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile $(ARGS)

## make lint     ruff and cython-lint
lint: develop
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/cython-lint src/piker_core/core

## make types    mypy --strict, and the stubs against the compiled modules
types: develop
	$(BIN)/mypy $(SOURCES)
	MYPYPATH=src $(BIN)/stubtest $(COMPILED:%=piker_core.core.%)

## make fuzz     nonsense for all that reads from outside  (FUZZ_S=60 seconds each, -j2)
fuzz: $(FUZZED:%=fuzz-%)

fuzz-%: develop build/fuzz/attach
	@mkdir -p build/fuzz/$*.corpus
	@$(if $(filter attach,$*),build/fuzz/attach -max_len=400,$(BIN)/python -m tests.fuzz.texts $*) \
		-max_total_time=$(FUZZ_S) -artifact_prefix=build/fuzz/$*- -verbosity=0 -print_final_stats=1 \
		build/fuzz/$*.corpus tests/fuzz/seeds/$* >build/fuzz/$*.log 2>&1 || \
		{ tail -n 40 build/fuzz/$*.log; exit 1; }
	@echo "$*:" $$(grep -o 'executed_units: .*' build/fuzz/$*.log) inputs

build/fuzz/attach: tests/fuzz/attach.c $(wildcard src/piker_core/core/*.h)
	@mkdir -p build/fuzz
	clang -std=gnu11 -O1 -g -Wall -Wextra -fno-sanitize-recover=all \
		-fsanitize=fuzzer,address,undefined -Isrc/piker_core/core $< -o $@ -lm -lpthread

## make wheel    sdist and wheel in dist/
wheel: develop
	$(BIN)/python -m build --outdir dist

## make bench    what an operation costs, beside references measured in the same run
bench: develop
	$(BIN)/python -m benchmarks.bench_ring $(ARGS)
	$(BIN)/python -m benchmarks.bench_fold $(ARGS)
	$(BIN)/python -m benchmarks.bench_feed $(ARGS)
	$(BIN)/python -m benchmarks.bench_binance $(ARGS)
	$(BIN)/python -m benchmarks.bench_journal $(ARGS)
	$(BIN)/python -m benchmarks.bench_store $(ARGS)
	$(BIN)/python -m benchmarks.bench_triggers $(ARGS)

## make clean    removes .venv, build products and caches
clean:
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

install: $(VENV)/installed
develop: $(VENV)/developing

# Without isolation the build finds its tools in the venv, now and at every import. Each
# venv has a build folder of its own.
editable = $(BIN)/python -m pip install --quiet --no-build-isolation \
	--config-settings=build-dir=$(BUILD) --editable

$(VENV)/installed: $(VENV)/build-requires.txt pyproject.toml meson.build
	$(editable) .
	@touch $@

$(VENV)/developing: $(VENV)/build-requires.txt pyproject.toml meson.build
	$(editable) '.[dev]'
	@touch $@ $(VENV)/installed

requires = import tomllib; \
	print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")

$(VENV)/build-requires.txt: pyproject.toml $(VENV)/pyvenv.cfg
	@$(BIN)/python -c '$(requires)' > $@
	$(BIN)/python -m pip install --quiet --requirement $@

# Whatever is missing is said in one sentence, before anything is made.
include_path = import sysconfig; print(sysconfig.get_path("include"))

$(VENV)/pyvenv.cfg:
	@for name in $(PYTHON); do \
	    if $$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        python=$$name; break; \
	    fi; \
	done; \
	no() { echo "piker-core cannot be built here: $$1" >&2; exit 1; }; \
	[ -n "$$python" ] || \
	    no "it needs Python 3.11 or newer, and none of '$(PYTHON)' is one (name yours: make PYTHON=/path/to/python)."; \
	$$python -c 'import ensurepip, venv' 2>/dev/null || \
	    no "$$python has no venv module (Debian: apt-get install python3-venv)."; \
	for name in '$(CC)' gcc clang; do \
	    if echo '#include <stdlib.h>' | $$name -fsyntax-only -x c - 2>/dev/null; then \
	        cc=$$name; break; \
	    fi; \
	done; \
	[ -n "$$cc" ] || \
	    no "there is no working C compiler (Debian: apt-get install gcc libc6-dev)."; \
	echo '#include <Python.h>' | \
	    $$cc -fsyntax-only -I"$$($$python -c '$(include_path)')" -x c - 2>/dev/null || \
	    no "the headers of $$python are missing (Debian: apt-get install python3-dev)."; \
	echo "making $(VENV) with $$($$python --version)"; \
	rm -rf $(BUILD); $$python -m venv $(VENV)

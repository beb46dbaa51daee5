# Everything a person types. Each target does its own set-up: `make demo` in a fresh clone is enough.
# Needs Python 3.11 or 3.12, make and git; uv is used when it is there.

.DEFAULT_GOAL := help
.PHONY: help install demo test test-integration test-all check audit build images lock dev chaos bench clean
SHELL := /bin/bash

# Compiled bytecode starts every process two to three times faster.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
MLOPS := $(BIN)/mlops
TOOLS := $(VENV)/tools

# How many months of data `make demo` loads; all of them when empty.
MONTHS ?=
# How many processes `make chaos` kills, each kind once when empty; and at how many moments of a range run and of a training it kills all.
KILLS ?=
MOMENTS ?= 3
# More arguments for pytest, such as TESTS="tests/unit -k settings".
TESTS ?=
# One file of benchmarks for `make bench`; all of them when empty.
BENCH ?=
# UPGRADE=yes makes `make lock` take the newest packages that pyproject.toml allows.
UPGRADE ?=

help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[36mmake %-17s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## Create .venv with the locked packages, the DuckDB extensions and the dbt manifest
	@$(MLOPS) prepare

# The stamp is newer than the lock and the project file when there is nothing to install.
$(VENV)/.installed: requirements.lock pyproject.toml
	@.ci/install-packages $(VENV)
	@touch $@

demo: install  ## The whole loop on the real flights: load, train, deploy, score, watch (MONTHS=2 for a short one)
	@$(MLOPS) demo $(if $(MONTHS),--months $(MONTHS))

demo-elsewhere: install  ## The demo with its state on S3, Redis, NATS and Postgres, which it starts for the time (MONTHS=2 for a short one)
	@$(BIN)/python tests/elsewhere.py $(MLOPS) demo $(if $(MONTHS),--months $(MONTHS))

# Shared out by file, the tests on one running stack as one file (tests/conftest.py): the worker that has it waits for it half of the time.
PYTEST := $(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder --durations 25

test: install  ## Run the unit tests, and the main job on a running stack (TESTS="tests/unit -k word" for some of them)
	@$(PYTEST) -m "not long" $(or $(TESTS),tests/unit tests/solutions)

test-integration: install  ## Run the tests of parts on real servers
	@$(PYTEST) -m "not long" tests/integration

test-all: install  ## Run every test, the long variants too, with more random examples
	@MLOPS_EXAMPLES=10 $(PYTEST) $(TESTS)

check: install  ## Lint, format, types and import layers
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

# Programs whose packages do not fit beside those of the lock.
$(TOOLS)/.installed: $(VENV)/.installed
	@$(BIN)/python -m venv $(TOOLS)
	@$(TOOLS)/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

audit: $(TOOLS)/.installed  ## Ask for known vulnerabilities of the locked packages (needs the network; fails when it cannot ask)
	@$(TOOLS)/bin/pip-audit --requirement requirements.lock --no-deps --disable-pip --strict --progress-spinner off

build: $(TOOLS)/.installed  ## Build the wheel, and the list of the locked packages (CycloneDX), into dist/: the same bytes from the same commit
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(BIN)/python -m hatchling build --target wheel
	@$(TOOLS)/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible --output-file dist/mlops-assets.cdx.json

images:  ## Build the images of the commit with podman, BASE=debian@sha256:...: the same layers from the same commit and base
	@[[ "$(BASE)" == *@sha256:* ]] || { echo "Name the base by its digest: make images BASE=docker.io/library/debian@sha256:..."; exit 1; }
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && git archive HEAD | tar --extract --directory "$$folder" \
		&& time=$$(git log -1 --format=%ct) && for target in serving code; do \
			podman build $(OPTIONS) --timestamp $$time --build-arg SOURCE_DATE_EPOCH=$$time --build-arg BASE=$(BASE) \
				--target $$target --tag mlops-$$target:$$(git rev-parse --short HEAD) "$$folder" || exit 1; done

dev: install  ## Run the stack in the foreground with all logs; Ctrl-C stops it
	@$(MLOPS) dev

chaos: install  ## Disturb a replay under load by every fault of docs/faults.md, as root (an hour; KILLS=100 for a night)
	@MLOPS_CHAOS_KILLS=$(KILLS) MLOPS_CHAOS_MOMENTS=$(MOMENTS) $(BIN)/python -m pytest --log-cli-level=INFO $(or $(TESTS),tests/faults tests/integration/test_interrupted_runs.py)

bench: install  ## Run the benchmarks and write docs/benchmarks.md (BENCH=stream: those of tests/benchmarks/test_stream.py)
	@$(BIN)/python -m pytest tests/benchmarks$(if $(BENCH),/test_$(BENCH).py) -s --page docs/benchmarks.md

lock:  ## Recompile requirements.lock from pyproject.toml (needs uv)
	uv pip compile $(if $(UPGRADE),--upgrade) pyproject.toml --extra dev --python-version 3.11 --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --output-file requirements.lock

clean:  ## Stop the stack, then remove .venv, the state and all caches
	@if [ -x $(MLOPS) ]; then $(MLOPS) down; fi
	@rm -rf $(VENV) .mlops dist dbt_project/target dbt_project/logs dbt_project/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

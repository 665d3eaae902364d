# Every target does its own set-up: the virtual environment, the Debian packages, the pinned jars (cached between runs).
# If Python, Java or Maven is missing, the target prints the command that installs it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
PY := $(VENV)/bin/python
HOME_DIR ?= .devstack
PORTS ?=
DEMO_HOME ?= .devstack-demo
PYTEST_ARGS ?=
# Workers of pytest. Each has its own servers (about 3 GB). Tests mostly wait, so two workers suit two cores.
# `make test` adds a worker without them, which runs the tests that need no stack.
WORKERS ?= 2
PARALLEL := -n $(WORKERS) --dist loadfile --no-loadscope-reorder
ALL_PARALLEL = -n $(shell expr $(WORKERS) + 1) --light-worker --dist loadfile --no-loadscope-reorder
CHECKED := $(wildcard syncer devstack demo bench tests)

.PHONY: help venv tools postgis chromium demo demo-down example test test-again test-long test-full test-version test-browser test-examples screenshots check lint types layers unit simulate integration bench \
    torture stack stack-down lock format clean

help:  ## list all targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

venv: $(VENV)/.installed  ## create the virtual environment from the lock files with hashes

$(VENV)/.installed: requirements-dev.txt pyproject.toml
	@for python in $${PYTHON:-} python3 python3.13 python3.12 python3.11; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found=$$python; break; fi; \
	done; \
	if [ -z "$${found:-}" ]; then echo "no Python 3.11 or later with venv found; install it: apt-get install -y python3 python3-venv" >&2; exit 1; fi; \
	if ! [ -x $(PY) ]; then echo "creating $(VENV) with $$("$$found" --version)"; "$$found" -m venv $(VENV); fi
	@echo "installing the locked dependencies"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

tools: venv  ## install the Debian packages for demo and tests (needs root)
	@command -v apt-get >/dev/null || command -v redis-server >/dev/null || { echo "no apt-get found: install PostgreSQL 15+, Redis 7 and docker-compose yourself" >&2; exit 1; }
	@command -v java >/dev/null || [ -n "$${JAVA_HOME:-}" ] || { echo "no Java found; install it: apt-get install -y openjdk-17-jdk-headless" >&2; exit 1; }
	@command -v mvn >/dev/null || { echo "no Maven found; install it: apt-get install -y maven" >&2; exit 1; }
	@$(PY) -m devstack packages postgresql redis-server docker-compose

postgis: tools  ## install PostGIS, which only the integration tests need
	@$(PY) -m devstack packages postgresql-postgis

chromium: tools  ## install Chromium, which only the tests of the daemon's page need
	@$(PY) -m devstack packages chromium

demo: tools  ## run everything on a small shop, from empty servers to checked documents (KEEP=1 leaves it running)
	@$(PY) -m demo

demo-down:  ## stop the demo that `make demo KEEP=1` left running, and delete its data
	@$(PY) -m devstack down --home $(DEMO_HOME) --purge
	@rm -f $(DEMO_HOME)/syncer.log $(DEMO_HOME)/webshop.log $(DEMO_HOME)/env
	@rmdir --ignore-fail-on-non-empty $(DEMO_HOME) 2>/dev/null || true

example: tools  ## run an example from readmodels/ on real servers, and show its queries (NAME=product_search)
	@$(PY) -m demo.examples $(NAME)

test: lint types layers postgis  ## run the checks and all tests except the longest
	@$(PY) -m pytest tests -m "not full and not long" $(ALL_PARALLEL) $(PYTEST_ARGS)

test-again: postgis  ## run the tests that failed in the last run again, one after another
	@$(PY) -m pytest tests -m "not full and not long" --last-failed --last-failed-no-failures none $(PYTEST_ARGS)

check: lint types layers unit  ## run lint, types, layers and unit tests, which need no servers

test-long: tools  ## run a round of torture and a demo, each on its own servers, after `make test`
	@$(PY) -m pytest tests -m long $(PYTEST_ARGS)

test-full: postgis chromium  ## run the longest tests, then test-version and a round of torture on PostgreSQL 14, 17 and 18
	@$(PY) -m pytest tests -m "full or long" $(PYTEST_ARGS) || [ $$? -eq 5 ]  # 5: no test has this mark
	@for version in 14 17 18; do \
	    $(MAKE) test-version VERSION=$$version; \
	    DEVSTACK_POSTGRES_VERSION=$$version $(PY) -m tests.torture --minutes 1; \
	done

test-version: tools  ## run the tests of hazards, convergence and the table sink on another PostgreSQL (VERSION=14 to 18)
	@DEVSTACK_POSTGRES_VERSION=$(or $(VERSION),$(error which? VERSION=14, 15, 16, 17 or 18)) \
	    $(PY) -m pytest tests -m "integration and not full and not long" -k "hazard or convergence or sink_postgres" $(PARALLEL) $(PYTEST_ARGS)

test-browser: chromium  ## run the tests of the daemon's page in Chromium
	@$(PY) -m pytest tests -m browser $(PYTEST_ARGS)

test-examples: tools  ## run every example of readmodels/ in a terminal
	@$(PY) -m pytest tests -m examples $(PYTEST_ARGS)

screenshots: chromium  ## take the pictures of docs/images from a real daemon, after 15 minutes of writes
	@SYNCER_SCREENSHOTS=docs/images $(PY) -m pytest tests/integration/test_page.py -k screenshots --timeout 1800 $(PYTEST_ARGS)

lint: venv  ## check rules and format with ruff
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .

format: venv  ## let ruff fix rules and format
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

types: venv  ## check types with mypy, strict
	@$(PY) -m mypy $(CHECKED)

layers: venv  ## check the import rules between the packages of syncer/
	@$(VENV)/bin/lint-imports --no-logo

unit: tools  ## run the tests that need no servers
	@$(PY) -m pytest tests/unit tests/simulation -n $(WORKERS) $(PYTEST_ARGS)

simulate: venv  ## run the pipeline in a million simulated schedules (SEED=… repeats a run)
	@$(PY) -m tests.simulation $(if $(SEED),--seed $(SEED))

integration: postgis  ## run the tests on real servers, which they start and stop themselves
	@$(PY) -m pytest tests -m "integration and not full and not long" $(PARALLEL) $(PYTEST_ARGS)

bench: tools  ## measure speed, latency and memory, and the limits of the servers alone
	@$(PY) -m bench

torture: tools  ## write while all servers have faults, then compare every document (SEED=… MINUTES=…)
	@$(PY) -m tests.torture $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

stack: tools  ## start the servers on the ports of config/syncer.yaml, with the shop's database (PORTS=random, PORTS="redis=16380 …")
	@$(PY) -m devstack up --home $(HOME_DIR) $(if $(filter random,$(PORTS)),--ports random,$(addprefix --port ,$(PORTS)))
	@$(PY) -m demo.stack --home $(HOME_DIR)

stack-down:  ## stop the servers and keep their data
	@$(PY) -m devstack down --home $(HOME_DIR)

PIP_COMPILE := $(VENV)/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras \
    --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

lock: venv  ## write the lock files again, after a change of pyproject.toml
	@$(PIP_COMPILE) --output-file requirements.txt pyproject.toml
	@$(PIP_COMPILE) --extra dev --constraint requirements.txt --output-file requirements-dev.txt pyproject.toml
	@$(PIP_COMPILE) --extra delta --constraint requirements-dev.txt --output-file requirements-delta.txt pyproject.toml

clean:  ## stop the stack, and delete its data, the virtual environment and all caches
	@if [ -x $(PY) ]; then $(PY) -m devstack down --home $(HOME_DIR) --purge; $(MAKE) demo-down; fi
	@rm -rf $(VENV) $(HOME_DIR) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -prune -exec rm -rf {} +

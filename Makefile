# make lab     JupyterLab on your own copy of the chapters (LAB_ARGS passes options on: LAB_ARGS=--no-browser)
# make check   what tools find without running anything: style, layout, types
# make test    the tests (TEST_ARGS passes options on: TEST_ARGS="-k wheel")
#
# All make the environment .venv first, if it is missing or older than what the project needs.

VENV ?= .venv
# The first Python from 3.11 to 3.13 on the PATH, by its full path; the one called python3 is preferred.
SUITS := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
ifndef PYTHON
PYTHON := $(shell for name in python3 python3.13 python3.12 python3.11 python; do \
	$$name -c '$(SUITS)' 2>/dev/null && command -v $$name && break; done)
endif
# Options for pip, such as PIP_ARGS="--extra-index-url ADDRESS" for the small CPU build of torch (see the README).
PIP_ARGS ?=
LEARNER ?= learner
LAB_ARGS ?=
TEST_ARGS ?=
# Test files run in this many processes, in the order of tests/conftest.py; every test computes on one torch thread.
TEST_WORKERS ?= 2

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# Not quiet: pip names what it downloads, with sizes and a progress bar.
INSTALL := $(PIP) install --constraint requirements/constraints.txt $(PIP_ARGS)
# Programs that are started by name (jupyter, nbgrader's alembic) must be found in the environment.
export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: help lab check test test-all site bench release wheel doctor environment clean
.DEFAULT_GOAL := help

help:
	@echo "make lab       JupyterLab on your own copy of the chapters, in $(LEARNER)/"
	@echo "make check     style, layout and types, by tools that run nothing"
	@echo "make test      the tests, and the seconds that each file of them took"
	@echo "make test-all  also every further network and method of kinds that make test has tested already"
	@echo "make site      the chapters as web pages, in build/site/"
	@echo "make bench     the benchmarks, one after another, into benchmarks/"
	@echo "make release   the chapters without solutions, in build/released/"
	@echo "make wheel     the package with chapters and data, in dist/"
	@echo "make doctor    what is installed, what this machine can do, what is missing"
	@echo "make clean     remove the environment and everything built (not $(LEARNER)/)"

lab: $(VENV)/lab.stamp
	$(BIN)/compedu lab --folder "$(LEARNER)" -- $(LAB_ARGS)

check: $(VENV)/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

test: $(VENV)/all.stamp
	$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --parts $(TEST_ARGS)

test-all: TEST_ARGS += --exhaustive
test-all: test

site: $(VENV)/all.stamp
	$(BIN)/python docs/build.py build/site --executed build/site-work/executed

bench: $(VENV)/all.stamp
	for benchmark in benchmarks/bench_*.py; do $(BIN)/python $$benchmark || exit 1; done

release: $(VENV)/lab.stamp
	$(BIN)/python -m compedu.release notebooks build/released

wheel: $(VENV)/all.stamp
	$(PIP) --quiet wheel --no-deps --no-build-isolation --wheel-dir dist .

doctor: $(VENV)/lab.stamp
	$(BIN)/compedu doctor

environment: $(VENV)/all.stamp

# What a learner needs. nbgrader is among it because the learner's chapters are made from the author's notebooks.
$(VENV)/lab.stamp: pyproject.toml requirements/constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 on the PATH: install one or say PYTHON=/path/to/it"; exit 1; }
	@echo "Step 1 of 2: an empty environment in $(VENV), from $(PYTHON): some seconds"
	@"$(PYTHON)" -m venv "$(VENV)"
	@echo "Step 2 of 2: torch, JupyterLab and what they need, into $(VENV): about 150 packages, two gigabytes,"
	@echo "  two to ten minutes the first time. (On Linux without the CPU build of torch, several gigabytes: see README.md.)"
	@echo "  pip's last line, 'Installing collected packages', stays for a minute or two while they are unpacked."
	@$(INSTALL) --quiet hatchling editables
	@$(INSTALL) --no-build-isolation --editable ".[course]"
	@echo "Installed. From now on, this step is skipped until the project needs other packages."
	@touch $@

# What the checks, the tests and the site need on top.
$(VENV)/all.stamp: $(VENV)/lab.stamp
	@echo "The tools for checks, tests and site, into $(VENV): about 60 further packages, some minutes the first time"
	@$(INSTALL) --no-build-isolation --editable ".[course,docs,test,check]"
	@touch $@

clean:
	rm -rf $(VENV) build dist

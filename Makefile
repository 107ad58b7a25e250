# Everything anybody does here, by name. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first Python that runs, is new enough, and can make environments. Looked for only while .venv is made.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)

PIP := .venv/bin/python -m pip --disable-pip-version-check --no-input
# What is locked is checked by hash; building our own package takes nothing from outside.
INSTALL := $(PIP) install --quiet --require-hashes --only-binary :all:
LINK := $(PIP) install --quiet --no-deps --no-build-isolation --editable .
PYTEST := .venv/bin/python -m pytest
# Three processes, each with a database server of its own: on two cores, since tests wait for a third of their time. Whole
# files, so that those share what is made for all their tests.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
CODE := src tests $(wildcard bench)

# Hundreds of Python processes are started: without compiled files each would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

##@ Use

.PHONY: demo
demo: .venv/runtime.stamp ## Take a payments file through the API, over two rails, and back from the bank
	.venv/bin/strongroom demo

.PHONY: serve
serve: .venv/runtime.stamp ## Start the platform and keep it up
	.venv/bin/strongroom serve

##@ Check

.PHONY: test
test: .venv/test.stamp ## Run the tests (10 minutes at most)
	$(PYTEST) $(PARALLEL) -m "not judges and not soak"

.PHONY: judges
judges: .venv/test.stamp ## Hold us against specifications others published (needs STRONGROOM_JUDGES=folder)
	@[[ -n "$${STRONGROOM_JUDGES:-}" ]] || { echo "make judges: set STRONGROOM_JUDGES to the folder of published specifications" >&2; exit 2; }
	@[[ -d "$$STRONGROOM_JUDGES" ]] || { echo "make judges: STRONGROOM_JUDGES=$$STRONGROOM_JUDGES is not a folder" >&2; exit 2; }
	$(PYTEST) -m judges

.PHONY: soak
soak: .venv/test.stamp ## Run the long campaigns: kills, fuzzing, random histories (hours)
	$(PYTEST) -m soak

.PHONY: check
check: .venv/test.stamp ## Style, types, import contracts and guards
	.venv/bin/ruff check $(CODE)
	.venv/bin/ruff format --check $(CODE)
	.venv/bin/mypy --strict
	.venv/bin/lint-imports
	$(PYTEST) tests/guards

.PHONY: bench
bench: .venv/test.stamp ## Measure against the database's own floor; writes bench.json
	.venv/bin/python bench/run.py

##@ Maintain

.PHONY: lock
lock: .venv/test.stamp ## Lock dependencies again after a change in pyproject.toml (UPGRADE=1 takes newer releases)
	$(LOCK) pyproject.toml --group build --output-file requirements/runtime.txt
	$(LOCK) pyproject.toml --group build --group test --group check --constraints requirements/runtime.txt --output-file requirements/test.txt
	$(LOCK) --group schemas --no-deps --output-file requirements/schemas.txt

LOCK = .venv/bin/uv pip compile --quiet $(if $(UPGRADE),--upgrade) --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: clean
clean: ## Remove what was built, cached and installed here (never var/, where your data is)
	rm -rf .venv build dist bench.json .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: help
help: ## This list
	@awk 'BEGIN { FS = ":.*## " } /^##@ / { printf "\n%s\n", substr($$0, 5) } /^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The environment. Stamps remember what was installed, so that a second run costs nothing.

.venv/made.stamp:
	@[[ -n "$(PYTHON)" ]] || { echo "Python 3.11 or newer with venv and ensurepip is needed (on Debian: apt install python3 python3-venv); or name one: make PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv --clear .venv
	@touch $@

.venv/runtime.stamp: .venv/made.stamp requirements/runtime.txt pyproject.toml
	@echo "Installing what strongroom runs on into .venv (once; about a minute)"
	$(INSTALL) -r requirements/runtime.txt
	$(LINK)
	@touch $@

.venv/test.stamp: .venv/runtime.stamp requirements/test.txt requirements/schemas.txt
	@echo "Installing what tests and checks need into .venv (once; about a minute)"
	$(INSTALL) -r requirements/test.txt
	$(INSTALL) --no-deps -r requirements/schemas.txt
	@touch $@

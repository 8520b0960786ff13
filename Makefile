# `make help` says what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo test walk check lint unit crds bench lock servers clean

# The oldest Python that will do is 3.11; the machine's default is taken where it is new enough.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$python" && break; done)
BIN := .venv/bin
READY := .venv/.ready
CRDS := databasebootstraps databaseservers
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header pyproject.toml
# Where the servers of tests, demo and benchmarks live.
WITH_SERVERS := PYTHONPATH=tests $(BIN)/python

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-8s %s\n' "$$name" "$$text"; done

setup: $(READY) ## Make .venv with all that is locked, and the command .venv/bin/database-bootstrap
	@echo "Ready: .venv/bin/database-bootstrap"

$(READY): requirements/dev.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed, and there is none on the PATH." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make virtual environments; install them (Debian, Ubuntu: apt install python3-venv)." >&2; exit 1; }
	@echo "Setting up .venv"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(PIP) install --require-hashes --requirement requirements/dev.txt
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

servers: $(READY)
	@$(WITH_SERVERS) -m localservers build >/dev/null

demo: servers ## Tell the story on real servers; KEEP=1 leaves them running
	@$(WITH_SERVERS) demo/demo.py

test: lint servers ## Run all checks and all tests, on real servers
	$(BIN)/pytest

walk: servers ## Crash at every message there is, for three tools; make test crashes at a part of them
	$(BIN)/pytest tests/crashing --walk 1

check: lint unit ## Run all checks and the tests that need no server

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	MYPYPATH=demo:bench $(BIN)/mypy operator tests bench demo
	$(BIN)/lint-imports
	@for kind in $(CRDS); do $(BIN)/database-bootstrap crd $$kind | diff -u crds/$$kind.dbbootstrap.io.yaml - || { \
		echo "crds/ is not what the models say: make crds" >&2; exit 1; }; done

unit: $(READY)
	$(BIN)/pytest tests/unit

crds: $(READY) ## Write crds/ from the models
	@for kind in $(CRDS); do $(BIN)/database-bootstrap crd $$kind > crds/$$kind.dbbootstrap.io.yaml; done

bench: servers ## Compare with psql scripts that do the same, and measure outages
	$(WITH_SERVERS) bench/bench.py
	$(WITH_SERVERS) bench/outage.py

lock: $(READY) ## Choose the newest dependencies that pyproject.toml allows
	@test -x $(BIN)/uv || $(PIP) install uv
	$(COMPILE) --upgrade --output-file requirements/runtime.txt
	$(COMPILE) --upgrade --group dev --output-file requirements/dev.txt

clean: ## Remove what make has made here; the servers in the user's cache stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

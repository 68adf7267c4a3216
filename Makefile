# `make demo` and `make test` need Python 3.11 or newer, git and the package registries; nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UV_VERSION := 0.13.9
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_ARGS ?=
TEST_ARGS ?=

.PHONY: help .venv test demo lock clean

help:
	@echo "make demo    start everything, import the sample of real orders, audit, stop (DEMO_ARGS=--short)"
	@echo "make test    the linter, then the whole suite on a real broker and a real database (TEST_ARGS='-k word')"
	@echo "make .venv   only the environment, from requirements.lock"
	@echo "make lock    pin requirements.in again into requirements.lock"
	@echo "make clean   remove the environment, the caches and the local data folder"

# The folder .venv exists as soon as it is half made, so a stamp written last says that it is complete.
.venv: $(STAMP)

$(STAMP): requirements.lock pyproject.toml Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Tradewind needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
		     "Name another: make PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
		echo "No environment could be made; on Debian: apt-get install python3-venv" >&2; \
		rm -rf $(VENV); exit 1; }
	@echo "Installing the pinned packages into $(VENV)"
	@# uv installs in seconds; where it cannot (a mirror known to pip only) pip does the same slowly.
	@$(BIN)/python -m pip install --quiet uv==$(UV_VERSION) \
		&& $(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock \
		|| $(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	@# compat: the folder itself is on the path, so that a new top-level package needs no new install.
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable . --config-settings editable_mode=compat
	@touch $@

test: $(STAMP)
	$(BIN)/ruff check --quiet schemas services tests
	$(BIN)/python -m pytest -q $(TEST_ARGS)

demo: $(STAMP)
	$(BIN)/tradewind demo $(DEMO_ARGS)

lock: $(STAMP)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		requirements.in -o requirements.lock

clean:
	@if [ -x $(BIN)/tradewind ] && [ -d .tradewind ]; then $(BIN)/tradewind down || true; fi
	rm -rf $(VENV) .tradewind .pytest_cache .hypothesis build *.egg-info
	find schemas services tests -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

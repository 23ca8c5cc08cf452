# The two commands a newcomer needs: `make demo` and `make test`. Both set up what they need by themselves.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
SOAK_SECONDS ?= 120

.PHONY: help demo test check bench soak format services clean

help:
	@echo "make demo   a complete round on real files: back up, change, back up again, verify, restore, compare"
	@echo "make test   all tests; as root on Debian the real services are installed by apt first"
	@echo "make check  format, lint, types, doors, unit tests: under a minute, before each commit"
	@echo "make bench  the performance claims, side by side with what a user would pick instead"
	@echo "make soak   random requests, changes and deaths for SOAK_SECONDS (120), then everything is counted; SOAK_SEED"

$(BIN)/holdfast: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: Python 3.11 or later is needed"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || sh tests/services/install.sh python3-venv
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(BIN)/holdfast

demo: $(BIN)/holdfast
	@$(BIN)/holdfast demo

services:
	@sh tests/services/install.sh

test: $(BIN)/holdfast services
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -n 4 --dist worksteal --durations=25

check: $(BIN)/holdfast
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/pytest -q -n 2 -m "not slow" tests/unit

format: $(BIN)/holdfast
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(BIN)/holdfast
	$(BIN)/python -m benchmarks

soak: $(BIN)/holdfast services
	$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS) $(if $(SOAK_SEED),--seed $(SOAK_SEED))

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis holdfast.egg-info

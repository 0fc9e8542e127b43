# Everything a newcomer runs. Needs Python 3.11+ and make; no Java, no Docker.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
LOCKS := infra/locks
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest

.PHONY: help setup demo test check format up down bench bench-all bench-analytics lock clean

help:  ## Say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## Make .venv with everything, from the locks with hashes

$(STAMP): $(LOCKS)/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Headrace needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	@echo "installing into $(VENV): about 6 GB, for torch brings CUDA libraries; a few minutes"
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "cannot make $(VENV): on Debian and Ubuntu, install python3-venv"; exit 1; }
	$(PIP) install --require-hashes --no-deps -r $(LOCKS)/dev.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(STAMP)  ## Start Kafka, run the whole path on simulated shoppers, show it live
	$(BIN)/headrace demo

test: $(STAMP)  ## Every test, on a real Kafka of its own
	$(PYTEST)

check: $(STAMP)  ## Format, lint, types, import rules, schemas, and the fast tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/headrace schemas check
	$(PYTEST) -q -m "not kafka and not slow and not drill"

format: $(STAMP)  ## Put the code into the one format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

up: $(STAMP)  ## Start a local region
	$(BIN)/headrace up

down: $(STAMP)  ## Stop it
	$(BIN)/headrace down

bench: $(STAMP)  ## The worker beside a plain loop: cost and latency, interleaved, as ratios
	$(BIN)/python bench/worker.py

bench-all: bench  ## Also the naive Faust program and a million users of state
	$(BIN)/python bench/worker.py --naive
	$(BIN)/python bench/state.py

bench-analytics: $(STAMP)  ## Each named question on ten million simulated events
	$(BIN)/python bench/analytics.py

lock: $(STAMP)  ## Resolve the dependencies anew, with hashes and without addresses
	@for name in dev train gpu base; do \
		case $$name in dev) extras="--extra train --extra analytics --extra dev" ;; base) extras= ;; *) extras="--extra $$name" ;; esac; \
		constraint=$$([ $$name = dev ] || echo "--constraint $(LOCKS)/dev.txt"); \
		$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
			--no-header --no-annotate --no-emit-index-url --no-emit-find-links \
			$$extras $$constraint --output-file $(LOCKS)/$$name.txt pyproject.toml || exit 1; \
	done

clean:  ## Remove what was made here; the local Kafka's data too
	-[ -x $(BIN)/headrace ] && $(BIN)/headrace down --wipe
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

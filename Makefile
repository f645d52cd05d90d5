# siglit: `make serve` and `make test` set up everything they need in .venv, which they share.

PYTHON ?= python3
# More options for installing torch, such as --index-url with the address of a CPU-only index.
TORCH_OPTIONS ?=
# Test files run side by side; most wait for servers to start or to give up.
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH := $(shell grep -oE '^torch==[^ ]+' requirements.txt)

.PHONY: serve test verify lint types check demo faults notebooks clean redis
.DEFAULT_GOAL := serve

serve: $(VENV)/.serve
	@exec $(BIN)/python -m litapi serve

test: $(VENV)/.dev redis
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0

verify: $(VENV)/.dev redis
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --max-worker-restart 0 -m 'verify or gpu'

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev
	$(BIN)/mypy

check: $(VENV)/.serve
	$(BIN)/python -m litapi check

demo: $(VENV)/.serve
	$(BIN)/python -m demo --seed 0

faults: $(VENV)/.dev redis
	$(BIN)/python -m bench.faults

notebooks: $(VENV)/.dev redis
	$(BIN)/python -m notebooks

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "siglit needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

# torch first and alone: whatever comes later finds it there and brings no second one.
$(VENV)/.serve: requirements.txt | $(BIN)/python
	@echo "setting up $(VENV) (a few minutes, once)"
	$(PIP) $(TORCH_OPTIONS) $(TORCH)
	$(PIP) -r requirements.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-bulk.txt requirements-int8.txt $(VENV)/.serve
	$(PIP) -r requirements-dev.txt
	@touch $@

redis:
	@command -v redis-server >/dev/null \
	  || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	       && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq redis-server >/dev/null; } \
	  || { echo "the tests need a real redis-server: sudo apt-get install redis-server"; exit 1; }

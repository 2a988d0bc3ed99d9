# `make run` and `make test` are the README's two commands; `make check` is everything that must be clean.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

$(BIN)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dashboard]'
	touch $@

$(BIN)/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $(BIN)/.installed $@

# For a machine without a package index: see docs/offline.md.
PYTHON_THERE ?= 3.12
MACHINE ?= x86_64
HAVE ?= benchmarks/gpu_machine.txt
BUNDLE ?= bundle

# The oldest versions that pyproject.toml allows, all of them at once, on another Python.
LOWEST_PYTHON ?= python3.12
LOWEST_VENV ?= .venv-lowest

$(LOWEST_VENV)/.installed: pyproject.toml benchmarks/lowest_versions.py
	test -x $(LOWEST_VENV)/bin/python || $(LOWEST_PYTHON) -m venv $(LOWEST_VENV)
	$(LOWEST_VENV)/bin/python benchmarks/lowest_versions.py > $(LOWEST_VENV)/lowest.txt
	$(LOWEST_VENV)/bin/python -m pip install --quiet --no-compile --editable '.[dev]' --constraint $(LOWEST_VENV)/lowest.txt
	touch $@

.PHONY: run test test-lowest slow check static format gpu-bundle
gpu-bundle: $(BIN)/.installed
	$(BIN)/python benchmarks/offline_bundle.py --to $(BUNDLE) --python $(PYTHON_THERE) --machine $(MACHINE) --have $(HAVE)

run: $(BIN)/.installed
	$(BIN)/scalesearch run --budget 8

test: $(BIN)/.installed-dev
	# A lost test process ends the run: restarted, it would wait for ever for tests that died with it.
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

test-lowest: $(LOWEST_VENV)/.installed
	$(LOWEST_VENV)/bin/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

LONGEST := tests/deployment $(wildcard tests/test_*.py) tests/confirm tests/cli
slow: $(BIN)/.installed-dev
	# The longest files first: with the default order, a single one of two minutes ends the run beside an idle core.
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0 \
		$(LONGEST) $(filter-out $(LONGEST) tests/__pycache__,$(patsubst %/,%,$(wildcard tests/*/)))

static: $(BIN)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: static test

format: $(BIN)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

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

.PHONY: run test slow check static format
run: $(BIN)/.installed
	$(BIN)/scalesearch run --budget 8

test: $(BIN)/.installed-dev
	# A lost test process ends the run: restarted, it would wait for ever for tests that died with it.
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

slow: $(BIN)/.installed-dev
	$(BIN)/python -m pytest -m slow

static: $(BIN)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: static test

format: $(BIN)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

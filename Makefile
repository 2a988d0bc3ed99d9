# `make run` and `make test` are the README's two commands; `make check` is what CI runs on top.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

$(BIN)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

.PHONY: run test check format
run: $(BIN)/.ready
	$(BIN)/scalesearch run --budget 8

test: $(BIN)/.ready
	$(BIN)/python -m pytest

format: $(BIN)/.ready
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

check: $(BIN)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PATH=$(BIN):$$PATH $(BIN)/lint-imports
	$(BIN)/python -m pytest

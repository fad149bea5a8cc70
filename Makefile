# `make demo` and `make test` set up everything they need from Python 3.11+ and a C++ compiler.
VENV ?= .venv
BIN := $(VENV)/bin
PYTHON ?= python3
SOURCES := pyproject.toml CMakeLists.txt $(wildcard kernels/cpu/*.cpp kernels/cpu/*.h)

.PHONY: demo test check format app bench gpu-test gpu-bench clean

$(VENV)/.installed: $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Egregium needs Python 3.11 or newer: make PYTHON=python3.11")'
	@for compiler in $$CXX c++ g++ clang++; do command -v $$compiler > /dev/null && exit; done; \
		echo 'Egregium needs a C++ compiler: apt install g++, dnf install gcc-c++, or xcode-select --install' >&2; exit 1
	@echo 'Setting up $(VENV): the libraries and the compiled kernels; once, a few minutes.'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(VENV)/.installed ## reconstruct the sample capture: splats, mesh, report, turntable
	$(BIN)/recon run assets/still_life --pipeline splats --preset fast --out demo --resume

test: $(VENV)/.installed ## the default tests
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not gpu' -n 2 --dist loadfile --no-loadscope-reorder # two busy processes: threads would wait for each other

check: $(VENV)/.installed ## format, lint, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

app: $(VENV)/.installed ## open the web page
	$(BIN)/recon serve

bench: $(VENV)/.installed ## every table of benchmarks/
	for script in splat_kernels mesh_kernels splats_quality mesh_quality densification optimisers splat_poses splat_decays splat_variants color_coupling lm_memory deform_tracks deform_video deform_adam isosurface_extract isosurface_octree points_quality registration meshsdf_demos isosurface_quality batch fuzz load crash; do $(BIN)/python -m benchmarks.$$script || exit 1; done

gpu-test: $(VENV)/.installed ## all tests on a GPU: what needs one, the kernels', the pipelines'
	@$(BIN)/python -c 'import sys, torch; sys.exit(0 if torch.cuda.is_available() else "There is no GPU here: recon doctor says why.")'
	$(BIN)/python -m pytest -m gpu
	$(BIN)/python -m pytest tests/kernels -k gpu
	$(BIN)/python -m pytest tests/pipelines/test_devices.py

gpu-bench: $(VENV)/.installed ## the GPU's tables of benchmarks/
	$(BIN)/python -m benchmarks.gpu_splats

clean:
	rm -rf $(VENV) build demo

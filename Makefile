# Two commands matter: `make demo` and `make test`. Both set up .venv by themselves.
PYTHON ?= python3
BIN := .venv/bin
# Without an NVIDIA driver the tested CPU versions are installed; with one, the ordinary CUDA build of torch.
HAS_GPU := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo yes)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(if $(HAS_GPU),,-c constraints/cpu.txt)
# Tests run side by side, each file in one process; those of a GPU, one after the other, for they share its memory.
WORKERS ?= $(if $(HAS_GPU),0,2)

.PHONY: demo test check test-gpu bench format clean

demo: .venv/installed
	$(BIN)/genomamba demo --force

test: check
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

check: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-gpu: .venv/installed-test
	$(BIN)/python -m pytest -m gpu

bench: .venv/installed-test
	$(BIN)/python benchmarks/cpu_step.py
	$(BIN)/python benchmarks/scan.py

format: .venv/installed-test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "genomamba needs Python >= 3.11; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "this Python cannot make virtual environments; on Debian: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml constraints/cpu.txt
	@echo "installing into .venv (a few minutes the first time)"
	$(PIP_INSTALL) $(if $(HAS_GPU),-e '.[gpu]',-e .)
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP_INSTALL) -e '.[test]'
	@# In an environment of its own, as its users have it; without it, the workflow's test says that it is skipped.
	@$(PYTHON) -m venv .venv/snakemake && .venv/snakemake/bin/python -m pip install --quiet \
		--disable-pip-version-check 'snakemake>=9,<10' || echo "snakemake could not be installed" >&2
	@touch $@

clean:
	rm -rf .venv demo build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# A fresh machine needs Python 3.10+ with venv, and make. A C++20 compiler gives the native kernels.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test lint bench check-native clean

demo: $(VENV)/.installed
	$(BIN)/hexad generate demo "Who are you?"
	$(BIN)/hexad generate demo "What is 12 + 30?"
	$(BIN)/hexad doctor

test: $(VENV)/.tested
	$(MAKE) lint
	$(BIN)/python -m pytest

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/budgets.py

bench: $(VENV)/.installed
	$(BIN)/hexad bench offline demo --num-prompts 32

# Slow, and not part of `test`: compiles every kernel once more. CONTRIBUTING.md says what it compares.
check-native:
	cmake -S . -B build/check -DHEXAD_CHECK=ON $(CHECK_FLAGS)
	cmake --build build/check
	build/check/hexad_check

# Whatever changes the build makes the install stale.
SOURCES := pyproject.toml CMakeLists.txt $(shell find native -type f) $(shell find hexad -name '*.py' -o -path '*/checkpoints/demo/*' -type f)

$(VENV)/.installed: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet .
	touch $@

# torch first, and by its exact version: a looser one may bring gigabytes of CUDA.
$(VENV)/.tested: $(VENV)/.installed
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet --editable ".[test]"
	touch $@

clean:
	rm -rf $(VENV) build

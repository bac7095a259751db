# `make demo` and `make test` work on a fresh clone: each makes .venv, installs what is pinned, builds the kernels, and runs.
TORCH  ?= torch==2.13.0
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check install format clean

demo: install
	$(BIN)/seqkit demo

test: install check
	$(BIN)/python -m pytest -q -m "not compile"
	SEQKIT_SHAPE_CHECKS=0 $(BIN)/python -m pytest -q -m compile

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run --Werror $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/csrc/*.h')

install: $(VENV)/.installed

# The torch that was asked for is part of what is installed: another one installs anew.
$(VENV)/.torch: FORCE
	@mkdir -p $(VENV)
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@
FORCE:

# Torch first and by name: the pinned requirements then find it there, and the native code is built against it.
$(VENV)/.installed: $(VENV)/.torch pyproject.toml requirements-dev.txt setup.py $(shell find csrc -type f)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $$(git ls-files 'csrc/*.h' 'csrc/*.cpp' 'csrc/*.cu' 'tests/csrc/*.h')

clean:
	rm -rf $(VENV) build demo *.egg-info seqkit/_C.abi3.so seqkit/_embedding.abi3.so seqkit/_build.json

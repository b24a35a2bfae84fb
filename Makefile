# make demo, make test: each sets up everything it needs in .venv on first use.
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from. The default is PyTorch's index of CPU builds (about 200 MB to download). For an NVIDIA GPU give the index of your CUDA
# version, or an empty value for PyPI's build (several GB with its CUDA packages): make TORCH_INDEX= demo
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0
DEMO ?= demo

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow lint format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@echo "Setting up $(VENV) (a few minutes the first time)"
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c "import torch" 2>/dev/null || $(MAKE) --no-print-directory torch
	@$(PIP) install --editable ".[test]"
	@touch $@

.PHONY: torch
torch:
	@if [ -n "$(TORCH_INDEX)" ] && $(PYTHON) -c "import sys, urllib.request as u; u.urlopen(sys.argv[1] + '/torch/', timeout=10)" "$(TORCH_INDEX)" 2>/dev/null; \
	then $(PIP) install $(TORCH) --index-url "$(TORCH_INDEX)"; \
	else $(PIP) install $(TORCH); fi

demo: $(INSTALLED)
	@rm -rf $(DEMO)
	@$(BIN)/chartmill sample --notes 200 --output $(DEMO)/sample
	@$(BIN)/chartmill run --input $(DEMO)/sample/notes --output $(DEMO)/out

test: $(INSTALLED) lint
	@$(BIN)/python -m pytest

test-slow: $(INSTALLED)
	@$(BIN)/python -m pytest -m slow --timeout=800

lint: $(INSTALLED)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(DEMO) build *.egg-info

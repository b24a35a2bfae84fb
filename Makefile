# make demo, make test: each sets up everything it needs in .venv on first use.
PYTHON ?= python3
VENV ?= .venv
# Where torch comes from. The default is PyTorch's index of CPU builds (about 200 MB to download). For an NVIDIA GPU give the index of your CUDA
# version, or an empty value for PyPI's build (several GB with its CUDA packages): make TORCH_INDEX= demo
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH := torch==2.13.0
DEMO ?= demo
# The tool that lists what is installed has an environment of its own, so that it is not in the list.
SBOM_TOOL := cyclonedx-bom==7.5.0
SBOM_VENV ?= $(VENV)-sbom
SBOM_OF ?= $(BIN)/python
SBOM ?= sbom.cdx.json

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow lint format sbom clean

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
	@$(BIN)/python -m pytest -m 'slow or hypothesis' --hypothesis-profile=thorough --timeout=800

lint: $(INSTALLED)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(INSTALLED)
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

# What is installed, with versions and licences, as CycloneDX JSON. SBOM_OF names the Python of another environment than .venv.
sbom: $(INSTALLED)
	@test -d $(SBOM_VENV) || $(PYTHON) -m venv $(SBOM_VENV)
	@$(SBOM_VENV)/bin/python -m pip -qq --disable-pip-version-check install $(SBOM_TOOL)
	@$(SBOM_VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --of JSON -o $(SBOM) $(SBOM_OF)

clean:
	rm -rf $(VENV) $(SBOM_VENV) $(DEMO) $(SBOM) build *.egg-info

# Each target sets up what it needs, without root, under build/.
PYTHON ?= python3
DEMO := build/venv-demo
DEV := build/venv-dev
TORCH := torch==2.14.1 torchvision==0.29.1

.PHONY: help demo serve test nightly lint fast browser clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(DEMO)/ready ## certify 20 real images with the shipped bundle (installs the light runtime only, no torch)
	$(DEMO)/bin/dualsmooth demo

serve: $(DEMO)/serve ## serve the shipped bundle on a real Triton server on loopback (fetches it, 55 MB)
	$(DEMO)/bin/python scripts/triton_server.py $(ARGS)

test: lint browser ## ruff, mypy --strict and the whole pytest suite
	$(DEV)/bin/python -m pytest -q

nightly: $(DEV)/ready ## the fuzz targets with 10,000 inputs each (build/fuzz.md: what happened to them)
	DUALSMOOTH_FUZZ=10000 $(DEV)/bin/python -m pytest -q tests/fuzz

fast: $(DEV)/ready ## the quick tests only
	$(DEV)/bin/python -m pytest -x -q -m 'not slow'

lint: $(DEV)/ready ## ruff and mypy --strict
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

browser: ## a headless Chromium for the tests of the report, if none is installed
	$(PYTHON) scripts/fetch_browser.py build/browser

clean: ## remove everything that make has built
	rm -rf build

$(DEMO)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet -e '.[cpu,report]'
	touch $@

$(DEMO)/serve: $(DEMO)/ready
	$(DEMO)/bin/pip install --quiet -e '.[cpu,report,triton]'
	touch $@

$(DEV)/ready: pyproject.toml
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet $(TORCH)
	$(DEV)/bin/pip install --quiet -e '.[dev]'
	touch $@

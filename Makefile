# Each target sets up what it needs, without root, under build/.
PYTHON ?= python3
DEMO := build/venv-demo
DEV := build/venv-dev
GPU := build/venv-gpu
CUPY ?= cupy-cuda12x
LIGHT := build/venv-openvino
LIGHT_TESTS := $(addprefix tests/,runtime/engine soundness/test_deployment.py $(foreach name,smoothing/test_sampler \
	commands/test_bench noise/test_philox,runtime/$(name).py))
EXAMPLES := build/venv-examples
EXAMPLES_TESTS := tests/examples/test_fastapi_service.py tests/runtime/serving
DOCS := build/venv-docs
OLDEST := build/venv-oldest
OLDEST_TESTS := $(addprefix tests/,$(foreach name,statistics smoothing noise/test_streams.py noise/test_generators.py \
	engine/test_engine.py evaluation/test_evaluate.py,runtime/$(name)) \
	$(foreach name,binding properties statistics,soundness/test_$(name).py))
# a process that dies ends the run: with another in its place it may wait for ever
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
TORCH := torch==2.14.1 torchvision==0.29.1
export DUALSMOOTH_DATA ?= $(CURDIR)/build/data
STEP = @printf '\n== %s\n'

.PHONY: help demo serve test light examples oldest gpu package nightly lint fast browser data docs bench clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(DEMO)/ready ## certify 20 real images with the shipped bundle (installs the light runtime only, no torch)
	$(DEMO)/bin/dualsmooth demo

serve: $(DEMO)/serve ## serve the shipped bundle on a real Triton server on loopback (fetches it, 55 MB)
	$(DEMO)/bin/python scripts/triton_server.py $(ARGS)

test: lint browser ## ruff, mypy --strict, the whole pytest suite, and the engine's tests on OpenVINO (about half an hour on 2 cores)
	$(PYTHON) scripts/fetch_data.py build/data
	$(STEP) 'tests, in two processes, a file at a time'
	$(DEV)/bin/python -m pytest -q $(SIDE_BY_SIDE)
	$(MAKE) light
	$(MAKE) examples
	$(MAKE) oldest
	$(MAKE) package
	$(MAKE) docs

light: $(LIGHT)/ready ## the engine's tests in a light environment with onnxruntime-openvino (no torch)
	$(STEP) 'tests of the engine on OpenVINO'
	$(LIGHT)/bin/python -m pytest -q $(LIGHT_TESTS)

examples: $(EXAMPLES)/ready ## the example service's tests, in an environment as its page makes it (no torch)
	$(STEP) 'tests of the example service'
	$(EXAMPLES)/bin/python -m pytest -q $(EXAMPLES_TESTS)

oldest: $(OLDEST)/ready ## the core's tests with the oldest NumPy, SciPy and ONNX Runtime that are allowed
	$(STEP) 'tests with the oldest versions'
	$(OLDEST)/bin/python -m pytest -q $(SIDE_BY_SIDE) -m 'not slow' $(OLDEST_TESTS)

gpu: $(GPU)/ready ## what needs an NVIDIA GPU, on one (docs/gpu.md; CUPY=cupy-cuda13x for a driver of CUDA 13)
	$(STEP) 'tests on a GPU'
	DUALSMOOTH_GPU=1 $(GPU)/bin/python -m pytest -q -m gpu tests/runtime/engine

package: ## build wheel and sdist, check both, install the wheel alone and run the demo (docs/releasing.md)
	$(STEP) 'the package'
	scripts/check_package.sh build/package

nightly: $(DEV)/ready ## the fuzz targets with 10,000 inputs each (build/fuzz.md: what happened to them)
	DUALSMOOTH_FUZZ=10000 $(DEV)/bin/python -m pytest -q tests/fuzz

fast: $(DEV)/ready ## the quick tests only
	$(DEV)/bin/python -m pytest -x -q -m 'not slow' $(SIDE_BY_SIDE)

lint: $(DEV)/ready ## ruff and mypy --strict
	$(STEP) 'ruff, mypy --strict'
	$(DEV)/bin/ruff check .
	$(DEV)/bin/ruff format --check .
	$(DEV)/bin/mypy

browser: ## a headless Chromium for the tests of the report, if none is installed
	$(PYTHON) scripts/fetch_browser.py build/browser

data: ## Fashion-MNIST into build/data, without root (DUALSMOOTH_DATA=build/data names it to dualsmooth)
	$(PYTHON) scripts/fetch_data.py build/data --required

docs: $(DOCS)/ready ## the documentation site, into build/site; warnings and broken links are errors
	$(STEP) 'the documentation site'
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build

bench: $(DEV)/ready $(LIGHT)/ready ## measure speed on this machine, into docs/bench.md (an hour; goes on where it was stopped; let nothing else run)
	$(DEV)/bin/python scripts/bench_table.py --openvino $(LIGHT)/bin/python --out docs/bench.md $(ARGS)

clean: ## remove everything that make has built
	rm -rf build

$(DEMO)/ready: pyproject.toml
	$(STEP) 'the light runtime, into $(DEMO)'
	$(PYTHON) -m venv $(DEMO)
	$(DEMO)/bin/pip install --quiet -e '.[cpu,images,terminal]'
	touch $@

$(DEMO)/serve: $(DEMO)/ready
	$(DEMO)/bin/pip install --quiet -e '.[cpu,images,triton]'
	touch $@

$(LIGHT)/ready: pyproject.toml
	$(STEP) 'the runtime with OpenVINO, into $(LIGHT)'
	$(PYTHON) -m venv $(LIGHT)
	$(LIGHT)/bin/pip install --quiet -e '.[openvino,fast]' onnx pytest
	touch $@

$(EXAMPLES)/ready: pyproject.toml examples/fastapi_service/requirements.txt
	$(STEP) 'the runtime and what the example service needs, into $(EXAMPLES)'
	$(PYTHON) -m venv $(EXAMPLES)
	$(EXAMPLES)/bin/pip install --quiet -e '.[cpu]' -r examples/fastapi_service/requirements.txt onnx pytest
	touch $@

$(GPU)/ready: pyproject.toml
	$(STEP) 'the runtime for NVIDIA GPUs, into $(GPU) (minutes)'
	$(PYTHON) -m venv $(GPU)
	$(GPU)/bin/pip install --quiet -e '.[gpu,report]' 'onnxruntime-gpu[cuda,cudnn]' tensorrt $(CUPY) onnx pytest
	touch $@

$(OLDEST)/ready: pyproject.toml
	$(STEP) 'the runtime with its oldest dependencies, into $(OLDEST)'
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install --quiet -e . numpy==1.26.0 scipy==1.12.0 onnxruntime==1.18.0 pillow==10.0.0 onnx pytest pytest-xdist hypothesis
	touch $@

$(DOCS)/ready: pyproject.toml
	$(STEP) 'the runtime and MkDocs, into $(DOCS)'
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/pip install --quiet -e '.[docs]'
	touch $@

$(DEV)/ready: pyproject.toml
	$(STEP) 'the tools of developers, into $(DEV) (5 GB, minutes)'
	$(PYTHON) -m venv $(DEV)
	$(DEV)/bin/pip install --quiet $(TORCH)
	$(DEV)/bin/pip install --quiet -e '.[dev]'
	touch $@

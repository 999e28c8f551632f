# `make help` lists what there is. Everything runs from .venv, which `make setup` makes.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
UV := 0.13.9
RUNNER := operator/dray/runner

.PHONY: help setup runner demo test test-full screenshots reference docs bench lint format lock wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(VENV)/installed runner ## .venv with everything, and the native runner
	@echo "setup: ready in $(VENV)"

demo: setup ## run a job and watch it
	@examples/prepare.sh
	@$(BIN)/python examples/demo.py

test: setup ## all tests; REQUIRE=docker,redis: fail where one of them is missing instead of skipping
	$(BIN)/pytest tests/unit tests/contract tests/e2e

test-full: export DRAY_TEST_FULL := 1
test-full: test ## all tests, the long ones too

screenshots: export DRAY_SCREENSHOTS := docs/images
screenshots: setup ## make the pictures in docs/page.md anew
	$(BIN)/pytest -q tests/e2e/test_page_for_all.py -k pictures

reference: setup ## print docs/reference-*.md from the code
	$(BIN)/python docs/reference.py

docs: setup ## the docs as a site, in site/
	@rm -rf .docs site && mkdir .docs
	@cp -r README.md CONTRIBUTING.md CHANGELOG.md LICENSE docs examples crds charts .docs && find .docs -name "*.py*" -delete
	$(BIN)/zensical build --strict

bench: setup ## measure beside docker run and others; BENCH="instant --rounds 9": some rows only, and so on
	$(BIN)/python -m benchmarks $(BENCH)

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## put the code in shape
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

lock: $(VENV)/python ## write the lock files anew from pyproject.toml
	$(BIN)/pip install --quiet uv==$(UV)
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --extra otel --extra s3 -o requirements.lock
	$(BIN)/uv pip compile $(LOCK) --group build -o requirements-build.lock
	$(BIN)/uv pip compile $(LOCK) pyproject.toml --group dev -o requirements-dev.lock
LOCK := --quiet --universal --generate-hashes --upgrade --custom-compile-command "make lock"

wheel: setup ## dist/dray-*.whl with the runner in it
	$(BIN)/pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

chart: setup ## what is made from charts/dray/values.yaml and crds/; golden files too where there is helm
	$(BIN)/python charts/reference.py
	$(BIN)/python charts/manifests.py
	PYTHONPATH=tests $(BIN)/python -m kit.golden

release: ## wheel, source, chart and image of TAG=v0.1.0; deploy/release says what else there is
	deploy/release $(TAG)

clean: ## remove all that was made here
	rm -rf $(VENV) dist .docs site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache $(RUNNER)/bin

runner: $(VENV)/python
	@$(MAKE) -s -C $(RUNNER)

$(VENV)/python: | tools
	python3 -m venv $(VENV)
	@touch $@

$(VENV)/locked: requirements-dev.lock $(VENV)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/installed: pyproject.toml $(VENV)/locked
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# What must be there before Python can help: installed on Debian as root, named otherwise.
TOOLS := python3-venv gcc libc6-dev make
.PHONY: tools
tools:
	@if python3 -c 'import venv, ensurepip' 2>/dev/null && command -v cc >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(TOOLS); \
	else \
		echo "setup: needs Python's venv module and a C compiler. Debian: sudo apt install $(TOOLS)" >&2; exit 1; \
	fi

# relay-otel: every target sets up what it needs and works on a fresh machine with Python >= 3.11, Go >= 1.26 and
# Node.js >= 20.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venvs/dev
PY := $(VENV)/bin/python
ARGS ?=

help: ## this list
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-13s %s\n' "$$name" "$$text"; done

# One virtual environment per lock file; made again when the lock or pyproject.toml changes.
.venvs/%/.ready: requirements/%.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than 3.11; set PYTHON=/path/to/python3.11 or newer."; exit 1; }
	@echo "installing Python packages into .venvs/$* (about 30 s, once) ..."
	@rm -rf .venvs/$*
	@$(PYTHON) -m venv .venvs/$*
	@.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$*.lock
	@.venvs/$*/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: .venvs/dev/.ready ## the development environment in .venvs/dev
ENVIRONMENTS := dev sdk-latest fastapi-0.141 sqlalchemy-2.0 genai genai-oldest beside-distro beside-logfire
setup-all: $(ENVIRONMENTS:%=.venvs/%/.ready) ## the environments tests run in: two SDKs, FastAPIs and SQLAlchemys, GenAI instrumentations, two other distributions

# The browser package. npm's lock says what is installed; made again when it or a source changes.
web/node_modules/.ready: web/package.json web/package-lock.json
	@node -e 'process.exit(+(process.versions.node.split(".")[0] < 20))' 2>/dev/null || \
	  { echo "node is not on PATH, or older than 20: install Node.js >= 20 with npm (https://nodejs.org)."; exit 1; }
	@echo "installing npm packages into web/node_modules (about 30 s, once) ..."
	@cd web && npm ci --silent --no-audit --no-fund
	@touch $@

web/dist/.ready: web/node_modules/.ready web/tsconfig.json web/scripts/build.mjs $(wildcard web/src/*.ts)
	@cd web && node scripts/build.mjs
	@touch $@

web: web/dist/.ready ## the browser package @relay-otel/web, built into web/dist

# What draws the pictures of the dashboards.
grafana/pictures/node_modules/.ready: grafana/pictures/package.json grafana/pictures/package-lock.json
	@cd grafana/pictures && npm ci --silent --no-audit --no-fund
	@touch $@

demo-tools:
	@$(PYTHON) tools/install.py --demo

tools: ## the pinned binaries: collector, Prometheus, promtool, Alertmanager, amtool, pint, blackbox_exporter, kustomize, Docker Compose; Docker's engine, PostgreSQL and Chromium; cached outside the checkout
	@$(PYTHON) tools/install.py

tools-path: ## print the folder of the binaries
	@$(PYTHON) tools/install.py --path

demo: setup demo-tools web ## the whole story with native binaries and a live panel; ARGS="--for 60 --check" ends by itself
	@$(PY) tools/demo.py $(ARGS)

generate: setup ## contract/, grafana/boards and the settings table -> Python, TypeScript, collector, rules, dashboards, docs
	@$(PY) -m relay_otel.contract generate
	@$(PY) -m grafana.build
	@$(PY) tools/generate.py

check: setup tools web docs ## format, lint, types, import layers, generated files fresh; dashboards; the manual; every configuration by its own validator
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports --no-cache
	@$(PY) -m relay_otel.contract lint
	@$(PY) -m relay_otel.contract generate --check
	@$(PY) -m grafana.build --check
	@$(PY) -m tools.rule_coverage
	@$(PY) tools/generate.py --check
	@cd web && node_modules/.bin/biome ci --error-on-warnings
	@bin="$$($(PYTHON) tools/install.py --path)"; \
	  "$$bin/promtool" check rules --lint=all --lint-fatal prometheus/rules/*.yml > /dev/null; \
	  "$$bin/pint" --no-color --offline --log-level ERROR --config prometheus/pint.hcl lint --fail-on=warning prometheus/rules
	@$(PY) -m tools.configs
	@$(VENV)/bin/amlint check --strict --rules 'prometheus/rules/*.yml' alertmanager/alertmanager.yml alertmanager/alertmanager.reduced.yml > /dev/null

test: setup-all tools web grafana/pictures/node_modules/.ready ## all tests: unit, contract, routes on two FastAPIs, queries on two SQLAlchemys, model calls of four instrumentations, two SDKs, the browser package in Chromium, end to end with real processes
	$(PY) -m pytest -q -n 2 --dist worksteal -m "not slow" --ignore tests/e2e/test_workers.py --ignore tests/genai tests $(ARGS)
	$(PY) -m pytest -q -m "not slow" tests/e2e/test_workers.py
	.venvs/sdk-latest/bin/python -m pytest -q -n 2 -m "not slow" tests/export $(patsubst %,tests/test_%.py,configure differential exemplars meter testing upstream) --ignore tests/export/test_folding.py
	.venvs/fastapi-0.141/bin/python -m pytest -q tests/http
	.venvs/sqlalchemy-2.0/bin/python -m pytest -q -n 2 -m "not slow" tests/db
	.venvs/genai/bin/python -m pytest -q -n 2 tests/genai
	.venvs/genai-oldest/bin/python -m pytest -q -n 2 tests/genai
	cd web && npm test --silent && CHROMIUM="$$($(PYTHON) ../tools/install.py --path)/chromium" npm run test:browser --silent

test-all: test ## the tests, and the proofs of minutes
	$(PY) -m pytest -q -m slow --ignore tests/e2e/test_workers.py --ignore tests/genai tests $(ARGS)
	$(PY) -m pytest -q tests/e2e/test_workers.py

pictures: setup demo-tools web grafana/pictures/node_modules/.ready ## docs/pictures: every dashboard as it is after the demo's incident
	@$(PY) -m grafana.pictures.make $(ARGS)

grafana-check: setup tools web ## every dashboard and query through a real Grafana in a container (needs Docker Compose), or through yours; ARGS="--url URL"
	@$(PY) -m tools.grafana_check $(ARGS)

up: setup ## the same story by Docker Compose, shaped as in production, and where to look; PROFILE=core, full (unless said), push or traces
	@$(PY) -m tools.compose up --profile "$${PROFILE:-full}"

down: setup ## end what `make up` started; the data stays in its volumes
	@$(PY) -m tools.compose down

soak: setup tools ## full load for minutes: memory, descriptors, series and counts stay right; ARGS="--for 600", ARGS="--for 3600 --faults"
	@$(PY) tools/soak.py $(ARGS)

chaos: setup tools ## everything around an app fails in turn, as root, and what each costs: the table of docs/reliability.md; ARGS="--only dns-failure --short"
	@$(PY) -m tools.chaos $(ARGS)

audit: setup tools ## known holes in what is locked: Python, npm, Go; exit 2 where the database cannot be asked
	@$(PY) -m tools.audit $(ARGS)

bench/web/node_modules/.ready: bench/web/package.json bench/web/package-lock.json
	@cd bench/web && npm ci --silent --no-audit --no-fund
	@touch $@

bench: setup tools web .venvs/sqlalchemy-2.0/.ready bench/web/node_modules/.ready ## the budgets of the design, side by side with what users would have instead; writes bench/results.md
	@$(PY) -m bench $(ARGS)

docs: .venvs/docs/.ready ## the manual in build/docs; a warning is an error
	@.venvs/docs/bin/python -m sphinx -W --keep-going -q -b html -c docs . build/docs

dist: setup web ## what is published, in dist/: wheel, sdist, the npm package, the release's notes; nothing is uploaded
	@$(PY) -m tools.dist

lock: setup ## resolve requirements/*.in again, with hashes and without package hosts
	@for each in $(ENVIRONMENTS) app docs; do \
	  (cd requirements && ../$(VENV)/bin/pip-compile -q --upgrade --generate-hashes --no-emit-index-url --no-emit-find-links \
	    --no-emit-options --allow-unsafe --strip-extras --no-header -o $$each.lock $$each.in); done

clean: ## remove environments and caches of this checkout
	@rm -rf web/dist web/node_modules bench/web/node_modules grafana/pictures/node_modules
	@rm -rf .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist src/*.egg-info

.PHONY: help setup setup-all web tools demo-tools tools-path demo up down generate check test test-all pictures grafana-check soak chaos audit bench docs dist lock clean

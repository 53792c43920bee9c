# One door to everything. `make help` says what there is.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
.PHONY: help setup python pebble check test test-all test-faults demo dev bench agent clean distclean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make this machine able to run Stagely (CHECK=1 only says what it would do)
	@CHECK=$(CHECK) scripts/setup/main.sh

# What checks need, and nothing else: no Docker, no Temporal.
python:
	@CHECK= ONLY="host python" scripts/setup/main.sh

# What tests of certificates need: Let's Encrypt's test authority.
pebble: setup
	@CHECK= ONLY="pebble" scripts/setup/main.sh

check: python ## Lint, format, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@deploy/temporal/check.sh

test: setup pebble ## All tests that take seconds, on real parts
	@scripts/test.sh -m "not slow"

test-all: setup pebble ## All tests, the slow ones too
	$(BIN)/pytest

test-faults: setup ## The worker killed at every point of its work, and every other fault (ARGS="--json FILE")
	$(BIN)/python -m tests.faults $(ARGS)

demo: setup ## A pull request's whole life, from webhook to nothing left (KEEP=1 leaves it running)
	$(BIN)/stagely demo $(if $(KEEP),--keep)

dev: setup ## The whole system on this machine, until Ctrl-C (ARGS="--port-base 9000")
	@exec $(BIN)/stagely dev $(ARGS)

bench: setup ## Webhook to first answer, beside a shell script that does the same by hand
	@mkdir -p .stagely
	$(BIN)/python -m bench.demo --json .stagely/bench.json

agent: python ## The agent's archive, dist/stagely-agent.pyz
	$(BIN)/python -m stagely.agent_archive

clean: ## Remove what setup and demo made: images, caches, networks, state (ALL=1: of every clone on this machine)
	@ALL=$(ALL) scripts/clean.sh

distclean: clean ## The same, and .venv
	rm -rf .venv

# The platform's lab and tests. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV := .venv
PYTHON := $(VENV)/bin/python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)

.PHONY: help up down ps logs seed prepare test test-long test-app lint benchmark capacity-report dashboards-preview clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV): FORCE
	@lab/bootstrap $(VENV)

FORCE:

up: $(VENV) ## Bring the whole platform up in the lab; safe to repeat
	@$(PYTHON) -m lab up

down: $(VENV) ## Stop the lab's hosts; their data stays
	@$(PYTHON) -m lab down

ps: $(VENV) ## Show hosts, addresses and services
	@$(PYTHON) -m lab ps

logs: $(VENV) ## Show journals: make logs [HOST=app1] [SERVICE=bank] [LINES=50]
	@$(PYTHON) -m lab logs $(if $(HOST),--host $(HOST)) $(if $(SERVICE),--service $(SERVICE)) $(if $(LINES),--lines $(LINES))

seed: $(VENV) ## Load the demonstration data again
	@$(PYTHON) -m lab seed

prepare: $(VENV) ## Build the host image and the mirror, without starting hosts
	@$(PYTHON) -m lab prepare

test: $(VENV) ## Run every check but two long ones: lint, unit tests, a Molecule scenario per role, end to end on the lab
	@$(PYTHON) -m tests.runner

test-long: $(VENV) ## Run the checks that are too long for make test: the smallest site, a cluster of Elasticsearch (20 minutes)
	@$(PYTHON) -m tests.runner prepare long

test-app: $(VENV) ## Run the application's own tests against a throw-away PostgreSQL and Redis
	@$(PYTHON) -m tests.runner app

lint: $(VENV) ## Run the static checks alone
	@$(PYTHON) -m tests.runner lint

benchmark: $(VENV) ## Measure the converge figures of benchmarks/README.md (about 20 minutes)
	@$(PYTHON) -m benchmarks.converge --settings

capacity-report: $(VENV) ## Write when each limit of the lab is reached: .lab/reports/capacity.html
	@$(PYTHON) -m lab capacity-report

dashboards-preview: $(VENV) ## Write the dashboards with the data of now, as pages: .lab/reports/dashboards/
	@$(PYTHON) -m lab dashboards-preview

clean: ## Remove the lab's hosts, data, keys and passwords; builds stay in the cache
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m lab clean; else rm -rf .lab; fi

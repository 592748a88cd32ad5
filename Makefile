# Two commands: `make demo` and `make test`. Both install what they need first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=
# Threads that wait actively fight over few cores, and everything takes ten times as long.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help install system-tools check test demo up clean
.DEFAULT_GOAL := help

help:                    ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

install: $(VENV)/installed   ## the virtual environment, with pinned versions

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "monro needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[worker,trainer,local,dev]'
	@touch $@

system-tools:            ## what the tests need from Debian: Orthanc, DCMTK, validators, Redis
	@deploy/system-tools.sh

check: install           ## what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check system-tools ## everything that must hold, on real servers, on loopback only
	$(BIN)/python -m pytest tests/listener tests/worker tests/trainer listener worker trainer
	deploy/loopback-only.sh $(BIN)/python -m pytest tests/system

demo: install            ## a synthetic study in, a report and an overlay out (STUDY=folder: yours)
	@$(BIN)/python -m deploy.local demo $(if $(STUDY),--study '$(STUDY)')

up: install              ## the same servers, staying up
	@$(BIN)/python -m deploy.local up

clean:                   ## forget the virtual environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache

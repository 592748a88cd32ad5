# Two commands: `make demo` and `make test`. Both install what they need first.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STUDY ?=
TRAINER := $(BIN)/python -m trainer
COMPACT := --config deploy/recipes/compact.toml
# Threads that wait actively fight over few cores, and everything takes ten times as long.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: help install system-tools check audit sbom test test-viewer viewer-pictures \
	console-pictures conformance configuration model-cards demo up train-demo \
	train-demo-infection bench-train bench-occlusion bench-study bench-ingest bench-soak \
	bench-ledger bench-console bench-console-postgresql chaos chaos-short fuzz clean
.DEFAULT_GOAL := help

help:                    ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 22

install: $(VENV)/installed   ## the virtual environment, with pinned versions

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "monro needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) -V)"; exit 1; }
	@echo "installing into $(VENV): about 2.5 GB, some minutes"
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --use-pep517 \
		--constraint constraints.txt --editable '.[worker,trainer,local,dev]'
	@touch $@

system-tools:            ## what the tests need from Debian: Orthanc, DCMTK, validators, Redis
	@deploy/system-tools.sh

check: install           ## what CI runs before the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m deploy.dependencies check

audit: install           ## are dependencies as pinned, allowed, and without known vulnerabilities?
	@$(BIN)/python -m deploy.dependencies audit

sbom: install            ## what the programs are made of, as CycloneDX (monro.cdx.json)
	@$(BIN)/python -m deploy.dependencies sbom monro.cdx.json

# In a mount namespace of its own, where that is permitted, it has a small disk that fills up.
MOUNTING = $(shell unshare --map-root-user --mount true 2>/dev/null \
	&& echo unshare --map-root-user --mount)
CHAOS = OMP_WAIT_POLICY=PASSIVE deploy/loopback-only.sh $(MOUNTING) \
	$(BIN)/python -m tests.system.chaos
SHORTLY := --kills 10 --studies 6 --patience 120

# What needs a program of Debian fails without it, and is not skipped.
ALL_TOOLS := SYSTEM_TOOLS=required

test: check system-tools ## everything that must hold, on real servers, on loopback only
	@# More at a time than there are cores: many tests wait for servers and clocks. Long ones first.
	$(ALL_TOOLS) OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 4 --dist loadfile \
		--no-loadscope-reorder tests/trainer tests/deploy tests/worker tests/fuzz tests/listener \
		listener worker trainer deploy
	@# A folder of our own: in its namespace everybody is root, and root's may be another's.
	$(ALL_TOOLS) PYTEST_DEBUG_TEMPROOT=$$(mktemp -d) deploy/loopback-only.sh \
		$(BIN)/python -m pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder tests/system
	@$(CHAOS) $(SHORTLY)

VIEWERS = OMP_NUM_THREADS=1 PYTEST_DEBUG_TEMPROOT=$$(mktemp -d) deploy/loopback-only.sh \
	$(BIN)/python -m pytest --numprocesses 0 tests/viewers

# OHIF is fetched once from the npm registry, 48 MB, into ~/.cache/monro; the tests need no network.
test-viewer: install system-tools  ## results in OHIF and Orthanc's viewer, in a real browser
	@$(BIN)/python -m tests.viewers.release
	$(VIEWERS)

viewer-pictures: install system-tools  ## the same, and its pictures anew into docs/pictures
	@$(BIN)/python -m tests.viewers.release
	$(VIEWERS) --pictures docs/pictures

console-pictures: install system-tools  ## pictures of the console anew into docs/pictures
	@OMP_NUM_THREADS=1 deploy/loopback-only.sh \
		$(BIN)/python -m tests.system.pictures docs/pictures

conformance: install     ## docs/conformance.md, written anew from the code's tables
	@$(BIN)/python -m deploy.conformance

configuration: install   ## docs/configuration.md, written anew from the settings' own classes
	@$(BIN)/python -m deploy.configuration

model-cards: install     ## docs/model-card-*.md, written anew from the committed bundles
	@$(BIN)/python -m deploy.model_cards

chaos: install system-tools   ## kill everything 200 times (KILLS=, STUDIES=): what was lost?
	@$(CHAOS) --kills $(or $(KILLS),200) --studies $(or $(STUDIES),40)

chaos-short: install system-tools  ## the same in under three minutes
	@$(CHAOS) $(SHORTLY)

fuzz: install            ## hostile input for listener and worker (INPUTS=20000, SEED=1, ONLY=)
	@deploy/loopback-only.sh $(BIN)/python -m tests.fuzz \
		--inputs $(or $(INPUTS),20000) --seed $(or $(SEED),1) $(if $(ONLY),--only $(ONLY))

demo: install            ## two synthetic studies in, reports and overlays out (STUDY=folder: yours)
	@$(BIN)/python -m deploy.local demo $(if $(STUDY),--study '$(STUDY)')

up: install              ## the same servers, staying up
	@$(BIN)/python -m deploy.local up

# What `make train-demo` makes; it goes on where it was stopped. Signs are larger and more of them
# show together than `synthesize` makes them by itself, where the Bern score is as good as in the
# paper: a network of this size learns too little from so few patients then.
TRAINED := .train-demo
PATIENTS ?= 210

train-demo: install      ## synthetic patients in, an evaluated bundle out (.train-demo)
	@[ -f $(TRAINED)/dicom/labels.csv ] || rm -rf $(TRAINED)
	@[ -f $(TRAINED)/dicom/labels.csv ] || \
		$(TRAINER) synthesize --out $(TRAINED)/dicom --patients $(PATIENTS) \
			--severity 1.5 --few-signs 0.5
	@# Synthetic patients have no secrets: with a known salt their folds are the same everywhere.
	@[ -f $(TRAINED)/salt ] || (umask 077 && printf '%064d' 0 > $(TRAINED)/salt)
	@$(TRAINER) gather --labels $(TRAINED)/dicom/labels.csv --dicom $(TRAINED)/dicom/studies \
		--out $(TRAINED)/cohort --slec subgroup --salt $(TRAINED)/salt $(COMPACT)
	@$(TRAINER) fit --cohort $(TRAINED)/cohort --out $(TRAINED)/run --all $(COMPACT)
	@$(TRAINER) evaluate --cohort $(TRAINED)/cohort --run $(TRAINED)/run --out $(TRAINED)/report
	@rm -rf $(TRAINED)/fistula-demo
	@$(TRAINER) export --cohort $(TRAINED)/cohort --run $(TRAINED)/run \
		--out $(TRAINED)/fistula-demo --report $(TRAINED)/report

# The second analysis, the same way: coarse slices, compact networks, all numbers in one file.
TRAINED_INFECTION := .train-demo-infection
PATIENTS_INFECTION ?= 104
REGIONS := --config deploy/recipes/compact-infection.toml

train-demo-infection: install  ## the same for infection: the paper's table, and a bundle
	@[ -f $(TRAINED_INFECTION)/dicom/labels.csv ] || rm -rf $(TRAINED_INFECTION)
	@[ -f $(TRAINED_INFECTION)/dicom/labels.csv ] || \
		$(TRAINER) synthesize --analysis infection --out $(TRAINED_INFECTION)/dicom \
			--patients $(PATIENTS_INFECTION) --matrix 128
	@[ -f $(TRAINED_INFECTION)/salt ] || (umask 077 && printf '%064d' 0 > $(TRAINED_INFECTION)/salt)
	@$(TRAINER) gather --labels $(TRAINED_INFECTION)/dicom/labels.csv \
		--dicom $(TRAINED_INFECTION)/dicom/studies --out $(TRAINED_INFECTION)/cohort \
		--salt $(TRAINED_INFECTION)/salt $(REGIONS)
	@OMP_NUM_THREADS=1 $(TRAINER) fit --cohort $(TRAINED_INFECTION)/cohort \
		--out $(TRAINED_INFECTION)/run --all $(REGIONS)
	@$(TRAINER) evaluate --cohort $(TRAINED_INFECTION)/cohort --run $(TRAINED_INFECTION)/run \
		--out $(TRAINED_INFECTION)/report --model DenseASPP-RadFusion
	@# Of the two fused models the smaller one: its bundle lies in the repository.
	@rm -rf $(TRAINED_INFECTION)/infection-demo
	@$(TRAINER) export --cohort $(TRAINED_INFECTION)/cohort --run $(TRAINED_INFECTION)/run \
		--out $(TRAINED_INFECTION)/infection-demo --model DenseASPP-RadFusion \
		--report $(TRAINED_INFECTION)/report

bench-train: install     ## training throughput beside a plain MONAI script
	@$(BIN)/python tests/benchmarks/train.py

# glibc gives large blocks back and faults them in again: that alone doubles the peers' time.
bench-occlusion: install ## cost of a position of the map beside MONAI and a plain forward pass
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[bench]'
	@MALLOC_MMAP_MAX_=0 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
		$(BIN)/python tests/benchmarks/occlusion.py

bench-study: install     ## where the time of one study goes
	@$(BIN)/python tests/benchmarks/study.py

bench-ingest: install system-tools  ## how fast instances are taken in, beside others
	@deploy/loopback-only.sh $(BIN)/python -m tests.benchmarks.ingest

bench-soak: install system-tools  ## whether the listener holds its memory over 100,000 instances
	@deploy/loopback-only.sh $(BIN)/python -m tests.benchmarks.soak

bench-ledger: install    ## what a row costs in a ledger of a thousand, and of a million
	@$(BIN)/python tests/benchmarks/ledger.py

bench-console: install   ## how fast the console's pages come with 100,000 studies
	@$(BIN)/python -m tests.benchmarks.console

bench-console-postgresql: install system-tools  ## the same, with the ledger in PostgreSQL
	@deploy/loopback-only.sh $(BIN)/python -m tests.benchmarks.console --postgresql

clean:                   ## forget the virtual environment and all caches
	rm -rf $(VENV) $(TRAINED) $(TRAINED_INFECTION) .mypy_cache .ruff_cache .pytest_cache

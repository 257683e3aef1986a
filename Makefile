# The interpreter that creates the environment, and the environment: `make test PYTHON=python3.12 VENV=/data/venv`.
PYTHON ?= python3
VENV ?= .venv

INSTALLED := $(VENV)/.installed
RUN := $(VENV)/bin/python
# One process a core, at most four; a file's tests stay together, since they share what is expensive to make.
PARALLEL := --numprocesses=auto --maxprocesses=4 --dist=loadfile

.PHONY: help install demo docs test test-all test-gpu test-slurm lint clean clean-runs

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 20

install: $(INSTALLED)  ## create .venv with PyTorch, Detectron2 and the rest

# The stamp is written only after a complete installation, so that a failed one is tried again.
$(INSTALLED): pyproject.toml tools/install.py
	@command -v "$(PYTHON)" >/dev/null || { echo "install: there is no $(PYTHON) here: \
	install Python 3.11 or newer, or name one, as in \`make PYTHON=python3.12\`" >&2; exit 1; }
	@$(PYTHON) tools/install.py "$(VENV)"
	@touch $@

demo: install  ## compare six routes to a pruned detector; results in runs/digits
	$(VENV)/bin/prune-transfer run digits --jobs auto

test: lint  ## style, types and the default tests
	$(RUN) -m pytest -m "not slow" -rs $(PARALLEL)

test-all: test  ## these, then the slow end-to-end tests
	$(RUN) -m pytest -m slow -rs --numprocesses=auto --maxprocesses=2 --dist=loadfile

docs: install  ## the documents as a site in build/site
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build --strict --quiet

test-gpu: install  ## the tests of studies and launchers on this machine's first GPU
	CUDA_VISIBLE_DEVICES=0 $(RUN) -m pytest -m "not slow" -rs tests/study tests/tools

# By the distribution's own packages; without them the test is skipped and says so.
test-slurm: install  ## a study as jobs of a real Slurm on this machine: needs Debian's slurm-wlm and munge
	$(RUN) -m pytest -rs tests/slurm

lint: install  ## style and types
	$(RUN) -m ruff check .
	$(RUN) -m mypy

clean:  ## remove .venv and caches; results in runs/ stay
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path "./runs/*" -prune -exec rm -rf {} +

clean-runs:  ## remove runs/, all results included
	rm -rf runs

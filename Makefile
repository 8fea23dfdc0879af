# Each of these works on a fresh clone: it brings .venv up to date first.
#
#   make serve   an OpenAI-compatible server with a small real model    CONFIG=FILE  another config
#   make test    the whole test suite                                   TESTS=PATH   a part of it
#   make lint    ruff, mypy, import directions
#   make bench   measured figures as JSON lines
#   make soak    ten minutes of load with faults; what it took must be given back   SOAK="--minutes 60"
#   make setup   the first half of `make serve`: everything but serving
#   make binary  Turnpike as one file, and as an archive of a folder, in dist/   EDITIONS="core torch"
#   make torch   what serves models of safetensors, into .venv
#   make fast    llama.cpp built anew for this very processor           make portable: and back
#   make lock    the lock files anew from pyproject.toml
#
# PYTHON=python3.12 chooses the Python; otherwise the first that is 3.11 or newer is taken.

.PHONY: help setup serve test lint bench soak torch binary fast portable lock clean
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?=
NAMES = $(if $(PYTHON),$(PYTHON),python3 python3.14 python3.13 python3.12 python3.11 python)
BOOTSTRAP = @for python in $(NAMES); do \
	if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
		exec "$$python" packaging/bootstrap.py $(if $(PYTHON),--this-python) $(1); \
	fi; \
done; \
echo "No Python 3.11 or newer among: $(NAMES)."; \
echo "Install one, then run this again (PYTHON=/path/to/python3 names one that is not on PATH):"; \
echo "  Debian, Ubuntu:  sudo apt install python3 python3-venv"; \
echo "  Fedora:          sudo dnf install python3"; \
echo "  macOS:           brew install python@3.13"; \
exit 1

IN = .venv/bin/

help:
	@sed -n '3,14s/^# \{0,1\}//p' Makefile

setup:
	$(call BOOTSTRAP,setup)

serve:
	$(call BOOTSTRAP,setup --quiet)
	@exec $(IN)turnpike $(if $(CONFIG),--config $(CONFIG)) serve

test:
	$(call BOOTSTRAP,dev --quiet)
	@exec $(IN)python -m pytest -n auto --maxprocesses 8 $(TESTS)

lint:
	$(call BOOTSTRAP,dev --quiet)
	@failed=0; \
	for tool in "ruff check ." "ruff format --check ." "mypy" "lint-imports --no-logo"; do \
		echo "== $$tool"; $(IN)$$tool || failed=1; \
	done; exit $$failed

bench:
	$(call BOOTSTRAP,dev --quiet)
	@exec $(IN)python -m tests.bench $(BENCH)

torch:
	$(call BOOTSTRAP,torch)

soak:
	$(call BOOTSTRAP,dev --quiet)
	@exec $(IN)python -m tests.soak $(SOAK)

binary:
	$(call BOOTSTRAP,binary $(if $(EDITIONS),--editions "$(EDITIONS)") \
		$(if $(ACCELERATOR),--accelerator $(ACCELERATOR)))

fast:
	$(call BOOTSTRAP,fast)

portable:
	$(call BOOTSTRAP,portable)

lock:
	$(call BOOTSTRAP,lock)

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

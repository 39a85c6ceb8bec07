# mailsrv from a fresh clone: needs make, and Python 3.11 or newer with venv.  Everything made here stays beside this file.
#
#   make run    a demonstration domain on loopback, in ./demo; Ctrl-C ends it
#   make test   ruff, mypy and every test
#   make lint   ruff and mypy alone
#   make bench  messages per second, beside Postfix when it is installed; BENCH="--rounds 5 --profile" passes options on
#   make clean  removes what was made here, the demonstration's mail too
#
# PYTHON=python3.12 chooses another interpreter for the environment.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH ?=

# An environment does not survive being moved: one made for another folder, or whose interpreter has gone, is made again.
made_for := $(shell $(BIN)/python -c '' 2>/dev/null && cat $(VENV)/made-for 2>/dev/null)
ifneq ($(made_for),$(CURDIR))
$(VENV)/made-for: FORCE
endif

.PHONY: help run test lint bench clean FORCE
.DELETE_ON_ERROR:

help:
	@sed -n '/^#/!q; s/^# \?//p' Makefile

run: $(VENV)/installed
	@exec $(BIN)/python tools/demo.py

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(VENV)/installed
	@$(BIN)/python -m bench $(BENCH)

clean:
	rm -rf $(VENV) .peers demo build dist bench/work *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
	rm -f twisted/plugins/dropin.cache

$(VENV)/made-for:
	@command -v $(PYTHON) >/dev/null || \
	    { echo "mailsrv needs Python 3.11 or newer: there is no $(PYTHON) here; install it, or say which: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "mailsrv needs Python 3.11 or newer: $(PYTHON) is `$(PYTHON) --version 2>&1`; say which other: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	    { echo "mailsrv needs Python with venv: $(PYTHON) has none; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "Making the Python environment in $(VENV) ..."
	@$(PYTHON) -m venv --clear $(VENV)
	@echo '$(CURDIR)' > $@

# The requirements are in setup.cfg; a change there installs again.
$(VENV)/installed: what := .
$(VENV)/installed-test: what := .[test,lint]
$(VENV)/installed $(VENV)/installed-test: setup.cfg pyproject.toml $(VENV)/made-for
	@echo "Installing what setup.cfg names ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '$(what)' || \
	    { echo "pip could not install what setup.cfg names; its reason is above. Is a package index within reach?" >&2; exit 1; }
	@touch $@

# Set-up and the three things to do with a clone. `labs/provision.sh` does the set-up, and nothing where it is done.

PYTHON := .venv/bin/python
SHELL_SCRIPTS := labs/provision.sh .ci/run

.PHONY: help lab test check provision provision-dev

help:
	@echo 'make lab     set up this machine, then the careless upgrade and the one that works'
	@echo 'make test    set up this machine, then every test'
	@echo 'make check   ruff, mypy, and shellcheck where it is installed'

provision:
	@sh labs/provision.sh

provision-dev:
	@sh labs/provision.sh --dev

lab: provision
	.venv/bin/fwlab run upgrade-careless
	.venv/bin/fwlab run upgrade-out-of-state

# Hundreds of processes that load the same modules: compiled once, and not by each of them.
unexport PYTHONDONTWRITEBYTECODE

# Most tests wait for members, so more of them run side by side than there are processors; see tests/conftest.py.
test: provision-dev
	$(PYTHON) -m pytest -n 6 --dist loadscope --no-loadscope-reorder

# Without caches in the tree: a clone may be read-only.
check: provision-dev
	$(PYTHON) -m ruff check --no-cache .
	$(PYTHON) -m mypy --cache-dir=/dev/null
	@if command -v shellcheck >/dev/null 2>&1; then shellcheck $(SHELL_SCRIPTS); fi

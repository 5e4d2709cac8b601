# Needs make and python3 (3.11 to 3.13). Python packages go to .venv; what they cannot bring comes from apt-get where this
# runs as root on Debian, and is asked for elsewhere.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

# $(call need,TEST,PACKAGE): see to it that the command TEST succeeds, by the Debian package PACKAGE where it does not.
need = $(1) >/dev/null 2>&1 || if [ "$$(id -u)" -eq 0 ]; then \
	apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $(2); \
	else echo 'missing: $(2); install it with your package manager' >&2; fi

.PHONY: help run test check format crash fuzz soak

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

run: .venv/installed ## start a gateway on this machine; ARGS='--help' passes arguments
	@exec $(BIN)/gateway serve $(ARGS)

test: .venv/installed-dev ## run the tests; ARGS='-k wheel' passes pytest arguments
	@$(call need,command -v npm,npm)
	@$(call need,command -v initdb || ls /usr/lib/postgresql/*/bin/initdb,postgresql)
	@$(BIN)/python -m pytest $(ARGS)

crash: .venv/installed-dev ## all crash points, faults and damage; 300 times kill -9, 40 power cuts (as root); SEED=1 CYCLES=200 CUTS=20
	@$(call need,command -v mkfs.ext4 && command -v mount,e2fsprogs mount)
	CRASH_POINTS=0 CRASH_FAULTS=0 CRASH_BITS=0 CRASH_SEED=$(or $(SEED),1) CRASH_CYCLES=$(or $(CYCLES),200) \
	POWER_CUTS=$(or $(CUTS),20) $(BIN)/python -m pytest tests/crash $(ARGS)

fuzz: .venv/installed-dev ## the tests that draw their own examples, with 100 times as many of them
	HYPOTHESIS_PROFILE=fuzz $(BIN)/python -m pytest -m hypothesis tests/kit tests/store tests/broker tests/wire $(ARGS)

soak: .venv/installed-dev ## a steady load for MINUTES=30 on a gateway of its own; every message must arrive
	$(BIN)/gateway bench --rate 2000 --messages $$(( $(or $(MINUTES),30) * 120000 ))

check: .venv/installed-dev ## lint, formatting, types, the systemd unit, the Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(call need,command -v systemd-analyze,systemd)
	@$(verify_unit)
	$(BIN)/hadolint deploy/Dockerfile

format: .venv/installed-dev ## mend what lint and formatting can mend by themselves
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# systemd-analyze fails where the program of ExecStart is not installed, and only warns of a key that it does not know.
# So it reads a copy that starts another program, and whatever it says of the unit is an error.
define verify_unit
echo 'systemd-analyze verify deploy/push-gateway.service'; \
copy=$$(mktemp -d) && trap 'rm -r "$$copy"' EXIT && \
sed 's|^ExecStart=[^ ]*|ExecStart=/bin/true|' deploy/push-gateway.service >"$$copy/push-gateway.service" && \
{ systemd-analyze verify --man=no --recursive-errors=no "$$copy/push-gateway.service" >"$$copy/said" 2>&1; status=$$?; } ; \
! grep -qF push-gateway.service "$$copy/said" && [ "$$status" -eq 0 ] || { cat "$$copy/said"; exit 1; }
endef

# The interpreter is a prerequisite, so that a new one, or one that is gone, makes the environment anew.
$(BIN)/python:
	@$(call need,$(PYTHON) -c 'import ensurepip',python3-venv)
	$(PYTHON) -m venv --clear .venv

.venv/installed: pyproject.toml $(BIN)/python
	$(PIP) install --editable .
	@touch $@

.venv/installed-dev: pyproject.toml $(BIN)/python
	$(PIP) install --editable '.[dev]'
	@touch .venv/installed $@

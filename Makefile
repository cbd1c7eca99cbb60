# Copyright (c) 2026 the exfil.guard authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# make demo    boots three machines, guards two of them, and shows who tried what and the result
# make verify  repeats the proofs: the compiler, the switch of policies and the BPF instructions (a few minutes)
# make test    all tests except the long runs: at most 45 minutes on two cores without hardware virtualisation

SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
export ANSIBLE_CONFIG := $(CURDIR)/ansible.cfg
export PYTHONDONTWRITEBYTECODE := 1
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
STEP = @printf '\n==> [%s] %s\n' "$$(date +%H:%M:%S)"
PLAYBOOK := ansible-playbook -i inventories/lab/hosts.yml

help:
	@sed -n 's/^# make/make/p' Makefile
	@echo "also: test-fast test-lint test-unit test-property test-native test-sanity test-kernels test-attacks adversary test-lab test-report test-fleet test-all generate bench scale lab-up lab-down clean"

# ---- what is needed -------------------------------------------------------------------------------------------------

DEBIAN := .cache/debian-$(shell sha256sum requirements-debian.txt | cut -c1-12)
VENV := .venv/$(shell sha256sum requirements-dev.txt | cut -c1-12)
needs: $(DEBIAN) $(VENV)

$(DEBIAN): requirements-debian.txt
	$(STEP) "Debian packages that are missing (up to 2 minutes)"
	@missing=$$(for package in $$(cat $<); do \
	    dpkg-query -W -f '$${Status}\n' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; done); \
	if [ -n "$$missing" ]; then \
	    echo $$missing; \
	    $(SUDO) apt-get -q update && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends $$missing; \
	fi
	@mkdir -p .cache && touch $@

# Debian's own Python, whatever else is first on the path
$(VENV): requirements-dev.txt $(DEBIAN)
	$(STEP) "Python packages into .venv (half a minute)"
	@/usr/bin/python3 -m venv --clear .venv
	@.venv/bin/pip install -q --disable-pip-version-check -r $<
	@touch $@

# what is written from the table of actions: plugins/module_utils/_guard/policy/actions.py
generate: needs
	@tools/generate

build: needs
	$(STEP) "BPF object"
	@$(MAKE) --no-print-directory -C bpf

# ---- the lab --------------------------------------------------------------------------------------------------------

lab-up: needs
	@lab/up

lab-down:
	@lab/down

demo: needs build
	$(STEP) "boot three machines: web1 and db1 will be guarded, outside plays the internet"
	@lab/up
	$(STEP) "ansible-playbook -i inventories/lab site.yml"
	@$(PLAYBOOK) site.yml
	$(STEP) "who tries what"
	@rm -rf lab/.build/demo && mkdir -p lab/.build/demo
	@$(PLAYBOOK) lab/demo.yml >lab/.build/demo.log 2>&1 || { cat lab/.build/demo.log; exit 1; }
	@.venv/bin/python lab/demo-table lab/.build/demo
	@echo "The machines stay up. Log in with 'ssh -F lab/.build/ssh-config web1'; 'make lab-down' removes them."

# ---- tests, quickest first ------------------------------------------------------------------------------------------

test-lint: needs
	$(STEP) "lint"
	@tools/lint

test-unit: needs build
	$(STEP) "unit"
	@$(SUDO) env PATH="$(PATH)" pytest -q -p no:cacheprovider -n auto --dist loadfile --no-loadscope-reorder tests/unit

test-property: needs
	$(STEP) "properties"
	@pytest -q -n auto tests/property

test-native: needs
	$(STEP) "decide.h on this machine against the reference"
	@pytest -q -n auto tests/native

# what is proved, and how: docs/verification.md
verify: needs build
	$(STEP) "proofs"
	@proof/run

test-fast: test-lint test-unit test-property test-native

test-kernels: build
	$(STEP) "hooks on Debian's kernels, emulated (several minutes)"
	@pytest -q tests/guest --ignore tests/guest/test_attacks.py

test-attacks: build
	$(STEP) "attacks on Debian's kernels, emulated: all of them on the oldest, a part on the others"
	@SHORT=1 pytest -q -s -p no:cacheprovider tests/guest/test_attacks.py -k "not table"

test-lab: build
	$(STEP) "Molecule on Vagrant machines (about 15 minutes when emulated)"
	@molecule test -s default

# the fleet's report in Debian's Chromium, which is installed for it (200 MB)
test-report: needs
	$(STEP) "the report's page in Chromium (a minute, and one to install it)"
	@dpkg-query -W chromium-driver >/dev/null 2>&1 || $(SUDO) env DEBIAN_FRONTEND=noninteractive \
	    apt-get -q -y install --no-install-recommends chromium chromium-driver
	@pytest -q -p no:cacheprovider tests/browser

test-fleet: build
	$(STEP) "a rollout, and a host that pulls, on Vagrant machines (about 15 minutes when emulated)"
	@lab/up
	@pytest -q -p no:cacheprovider tests/lab
	@lab/down

# what the guests showed goes into docs/mediation.md with UPDATE=1
adversary: build
	$(STEP) "attacks on Debian's kernels, emulated (several minutes)"
	@started=$$SECONDS; UPDATE=$(UPDATE) pytest -q -s -p no:cacheprovider tests/guest/test_attacks.py && \
	    echo "attacks: $$((SECONDS - started)) seconds"
	$(STEP) "random programs of bound tasks, ten minutes for each kernel"
	@GENERATE=600 pytest -q -s -p no:cacheprovider tests/guest/test_generator.py

test: test-fast verify test-kernels test-lab
	$(STEP) "make test: everything passed"

# ansible-test sanity; needs the package index
test-sanity: needs
	$(STEP) "ansible-test sanity on a staged copy (3 minutes)"
	@tests/sanity/run

test-all: test test-sanity adversary test-report test-fleet
	@PROGRAMS=5000 proof/run bytecode
	@POLICIES=100000 proof/run correspondence
	@HYPOTHESIS_PROFILE=long MUTANTS=10000 pytest -q -n auto tests/property tests/native
	@LONG=1 pytest -q -s -p no:cacheprovider tests/guest/test_attacks.py -k storms
	@GENERATE=3600 pytest -q -s -p no:cacheprovider tests/guest/test_generator.py
	@HOOKS=all pytest -q tests/guest --ignore tests/guest/test_attacks.py
	@$(MAKE) --no-print-directory scale

# ten, a hundred and a thousand simulated hosts; takes an hour
scale: needs
	@$(SUDO) env PATH="$(PATH)" nice tests/scale/run $(HOSTS)

bench: build
	@tests/bench/run

bench-report: test-report
	@tests/bench/page

clean: lab-down
	rm -rf .venv .cache .build lab/.build lab/.vagrant

.PHONY: help needs generate build lab-up lab-down demo test-lint test-sanity test-unit test-property test-native verify test-fast test-kernels test-attacks test-lab test-report test-fleet test \
	test-all bench bench-report scale clean
.NOTPARALLEL:

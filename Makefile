# desnode: `make help` lists the targets. All that is assumed is Go, make and,
# for the tests, apt: test-deps installs a C compiler, Postgres and an S3 server.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
LINT     := $(GO) tool -modfile=.ci/tools/go.mod golangci-lint
REDOCLY  := @redocly/cli@2.77.0
FUZZTIME ?= 60s
ENGINE   ?= docker
OUTAGE   ?= 1m
KILL     ?= -kills 50 -files 10000
CLUSTER  ?=
CHAOS    ?=
REBUILD  ?=

# What one node of the developer's environment does: mark, pack, keep, in any
# combination; empty: it only serves reads.
WORK     ?= mark,pack,keep

.PHONY: help demo build test test-short test-deps bench fuzz lint fmt check kill-test outage-test cluster-test clean
.PHONY: chaos chaos-long rebuild-test mutants
.PHONY: dev-up dev-node dev-cluster dev-mark dev-pack dev-keep dev-read image compose-e2e ring-study

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## three nodes archive Go's own source tree, read it all back and compare, also while one is killed
	./bin/desnode demo $(if $(DIR),'$(DIR)')

build: ## build bin/desnode, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o bin/desnode .

test: test-deps ## run every test under the race detector
	CGO_ENABLED=1 $(GO) test -race -timeout 20m ./...

test-short: ## run the quick tests only, without the race detector
	$(GO) test -short ./...

test-deps: ## install what the tests need and the machine lacks
	@.ci/test-deps

bench: ## print the figures of DESIGN.md §12
	.ci/bench

ring-study: ## print how the ring places shards at 3 to 100 nodes, for candidate parameters
	$(GO) run ./ring/study

fuzz: ## fuzz each target for FUZZTIME (60s)
	.ci/fuzz $(FUZZTIME)

lint: ## run the linters, the OpenAPI linter too where npm is there
	$(LINT) run ./...
	@if ! [ -f node/api/openapi.yaml ]; then :; \
	elif command -v npx >/dev/null; then REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true npx --yes $(REDOCLY) lint --config .ci/redocly.yaml node/api/openapi.yaml; \
	else echo "npx is not there: openapi.yaml was not linted"; fi

fmt: ## format the code
	$(LINT) fmt ./...

kill-test: build ## kill -9 a node again and again while it archives, and check that nothing is lost
	$(GO) run ./chaos/killtest -bin bin/desnode $(KILL)

dev-up: test-deps build ## start Postgres and S3 below dev-data with a customer's table of documents; Ctrl-C ends them
	$(GO) build -o bin/dev-up ./deploy/dev/up
	exec ./bin/dev-up -dir dev-data -desnode bin/desnode

# The data dir of dev-node is that of dev-cluster's first node, so one of the two
# at a time; once there are three nodes, one alone has no quorum. What one kind of
# work leaves, the next takes up.
dev-node: build ## start a node on what dev-up started, doing WORK (mark,pack,keep)
	@[ -f dev-data/env ] || { echo "there is no dev-data/env: run 'make dev-up' in another terminal first" >&2; exit 1; }
	. dev-data/env && DESNODE_WORK='$(WORK),' exec ./bin/desnode start

dev-cluster: build ## start three nodes on what dev-up started; Ctrl-C ends them
	exec deploy/dev/cluster

dev-mark: ## start that node with marking only
	@$(MAKE) dev-node WORK=mark
dev-pack: ## start that node with packing only
	@$(MAKE) dev-node WORK=pack
dev-keep: ## start that node with upkeep only: acknowledge, verify, delete
	@$(MAKE) dev-node WORK=keep
dev-read: ## start that node with no work at all: it serves reads
	@$(MAKE) dev-node WORK=

# What the image holds, as deploy/Dockerfile takes it.
CA_BUNDLE ?= /etc/ssl/certs/ca-certificates.crt
image: build ## build the container image desnode:dev from bin/desnode, offline
	rm -rf bin/image && mkdir -p bin/image/data
	cp bin/desnode bin/image/desnode
	cp '$(CA_BUNDLE)' bin/image/ca-certificates.crt
	$(ENGINE) build -f deploy/Dockerfile --target offline -t desnode:dev .

compose-e2e: ## run deploy/compose where a container engine is: archive, read back, compare
	@command -v '$(ENGINE)' >/dev/null || { echo "compose-e2e needs a container engine, and there is no $(ENGINE) here; ENGINE=podman names another" >&2; exit 1; }
	@$(MAKE) image
	ENGINE='$(ENGINE)' deploy/compose/e2e

outage-test: test-deps ## take Postgres and S3 away from a node for OUTAGE (1m) at a time, and check that nothing is lost
	$(GO) test ./chaos/outage -count=1 -v -timeout 40m -outage $(OUTAGE)

cluster-test: build test-deps ## kill, freeze, cut off and restart nodes of clusters, and measure them (as root; CLUSTER='-run REGEXP')
	$(GO) run ./chaos/cluster -bin bin/desnode $(CLUSTER)

# A node's clock can be set only in a build with the tag chaos.
bin/desnode-chaos: FORCE
	CGO_ENABLED=0 $(GO) build -trimpath -tags chaos -ldflags '-s -w' -o $@ .
.PHONY: FORCE
FORCE:

chaos: bin/desnode-chaos test-deps ## break a cluster of five in every way for five minutes, and check that nothing is lost (as root; CHAOS='-seed N')
	$(GO) run ./chaos/storm -bin bin/desnode-chaos -for 5m $(CHAOS)

chaos-long: bin/desnode-chaos test-deps ## the same for an hour, with 200 kills and every fault at least five times
	$(GO) run ./chaos/storm -bin bin/desnode-chaos -for 1h $(CHAOS)

rebuild-test: build test-deps ## lose the nodes and the state columns of a million archived files, rebuild, and compare (REBUILD='-files 100000')
	$(GO) run ./chaos/rebuildtest -bin bin/desnode $(REBUILD)

mutants: ## break one safety rule at a time, and check that a test notices each
	$(GO) run ./chaos/mutants

check: lint build test ## what CI runs: lint, build, test, a short fuzz and a short kill test
	.ci/fuzz 3s
	$(MAKE) kill-test KILL='-kills 3 -files 2000'

clean: ## remove what the targets built
	rm -rf bin

# desnode: `make help` lists the targets. All that is assumed is Go, make and,
# for the tests, apt: test-deps installs a C compiler, Postgres and an S3 server.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

GO       ?= go
LINT     := $(GO) tool -modfile=.ci/tools/go.mod golangci-lint
REDOCLY  := @redocly/cli@2.77.0
FUZZTIME ?= 60s
KILL     ?= -kills 50 -files 10000

.PHONY: help demo build test test-short test-deps bench fuzz lint fmt check kill-test clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: build ## start a node, archive Go's own source tree, read it all back and compare
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

check: lint build test ## what CI runs: lint, build, test, a short fuzz and a short kill test
	.ci/fuzz 3s
	$(MAKE) kill-test KILL='-kills 3 -files 2000'

clean: ## remove what the targets built
	rm -rf bin

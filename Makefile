# The commands of this project. `make help` lists them.
#
# Everything here works without a network once the Go modules are in the module
# cache. Packages are compiled with the same two settings wherever that is
# possible (no cgo, trimmed paths), because Go keeps a compiled package once per
# combination of settings, and the dependencies take minutes to compile.

VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo devel)
IMAGE    ?= clusterset-dns:$(VERSION)
# A docker that reaches no engine cannot build; buildah needs none.
BUILDER  ?= $(shell docker version >/dev/null 2>&1 && echo docker || command -v buildah || echo docker)
ARCH     ?= $(shell go env GOARCH)
CACERTS  ?= $(firstword $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem))
FUZZTIME ?= 10s

# "docker build", "buildah build" and "podman build" take the same arguments.
GO_PLAIN  = CGO_ENABLED=0 GOFLAGS="$$(go env GOFLAGS) -trimpath"
LDFLAGS   = -s -w -X main.version=$(VERSION)
LINTER    = bin/golangci-lint
LINT      = $(GO_PLAIN) $(CURDIR)/$(LINTER) run

.DELETE_ON_ERROR:
.PHONY: all help generate test unit e2e cases vectors demo screenshots bench propagation compare scale chaos cluster-test picture simulate simulatefaults fuzz lint vulncheck image clean gcc

all: ## Build the server and its command line, static binaries: bin/coredns, bin/clustersetctl
	@echo "== build bin/coredns and bin/clustersetctl $(VERSION) (the first time: some minutes, for the dependencies)"
	$(GO_PLAIN) go build -ldflags "$(LDFLAGS)" -o bin/coredns ./cmd/coredns
	$(GO_PLAIN) go build -ldflags "$(LDFLAGS)" -o bin/clustersetctl ./cmd/clustersetctl
	ln -sf clustersetctl bin/kubectl-clusterset

help: ## List these commands
	@sed -nE 's/^([a-z0-9-]+):.* ## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 17

generate: ## Write what is generated anew, after a change of plugin.cfg or of the dashboard
	go generate ./...
	cd test && $(GO_PLAIN) go generate ./...

test: unit e2e ## Run all tests: unit tests, then end to end with real control planes

unit: gcc ## Run the unit tests under the race detector
	@echo "== unit tests, with the race detector"
	CGO_ENABLED=1 go test -trimpath -race -timeout 15m ./...

# One package at a time (-p 1): each has control planes of its own, and some measure times.
e2e: gcc ## Run the end-to-end tests with real kube-apiservers (built on first use)
	@echo "== end-to-end tests; the first run builds the control planes, about 10 minutes on two cores"
	cd test && $(GO_PLAIN) go test -p 1 -timeout 30m ./...

cases: ## Ask every query of the conformance cases (CLUSTERSET_CASES=DIR: of your own)
	cd test && $(GO_PLAIN) go run ./cmd/cases

# The tests print a line per section; awk leaves out the rows that pass and hands on the result of go.
vectors: ## Run the published balancing rows (CLUSTERSET_VECTORS=FILE: of your own)
	@{ CLUSTERSET_VECTORS="$(if $(CLUSTERSET_VECTORS),$(abspath $(CLUSTERSET_VECTORS)))" $(GO_PLAIN) \
		go test -count=1 -v -run '^TestVectors$$' ./plugin/pkg/balance ./plugin/pkg/health ./plugin/clusterset; echo "exit $$?"; } \
	| awk '/^exit [0-9]+$$/ { code = $$2; next } !/^ *=== |^ *--- PASS/ { print } END { exit code }'

demo: ## Start three clusters and the server, show answers, stay up (ONCE=1: end)
	cd test && ONCE="$(ONCE)" $(GO_PLAIN) go run ./cmd/demo

screenshots: ## Take the pictures of the status page in docs/images (needs chromium)
	cd test && $(GO_PLAIN) go run ./cmd/screenshots

bench: ## Run the Go benchmarks
	$(GO_PLAIN) go test -run '^$$' -bench . -benchmem ./...

propagation: ## Measure the time from a change in an API server to the answer
	cd test && $(GO_PLAIN) go run ./cmd/propagation

compare: ## Measure it beside kubernetes, multicluster and others, as ratios (COMPARE="-services 1000 -rounds 1": a quick look)
	cd test && $(GO_PLAIN) go run ./cmd/compare $(COMPARE)

scale: ## Measure it with a hundred simulated clusters and up to a million endpoints (SCALE="-endpoints 10000": a quick look)
	cd test && $(GO_PLAIN) go run ./cmd/scale $(SCALE)

chaos: ## Hurt three clusters under load; the table goes into test/chaos/README.md
	cd test && CHAOS_WRITE=1 $(GO_PLAIN) go test -count=1 -v -run '^TestChaos$$' -timeout 15m ./chaos

# Without root, without Linux, or where packages are missing and cannot be installed, it says so and passes.
cluster-test: ## Run two real clusters on this machine, as root; CLUSTER_TEST_WRITE=1: the table goes into test/realcluster/README.md
	@echo "== two real clusters; missing Debian packages are installed, kubelet and containerd built: the first time some minutes"
	cd test && CLUSTER_TEST=1 $(GO_PLAIN) go test -count=1 -v -run '^TestRealClusters$$' -timeout 25m ./realcluster

picture: ## Draw the main panels of the dashboard from four minutes of real servers into docs/images (needs prometheus)
	cd test && PICTURE_WRITE=1 $(GO_PLAIN) go test -count=1 -v -run '^TestPicture$$' ./observe

# A schedule is what happens to four clusters and the server, drawn from a seed: the same seed, the same schedule.
simulate: ## Compare the server with a model in 10,000 random schedules (SCHEDULES=N, SEED=N: one of them, 10 times, in full)
	SEED="$(SEED)" SCHEDULES="$(or $(SCHEDULES),$(if $(SEED),1,10000))" $(GO_PLAIN) \
		go test -count=1 -v -run '^TestSimulation$$' -timeout 30m ./plugin/clusterset

simulatefaults: ## Plant twenty faults and more in the source, and see that the simulation finds each
	SIMULATE_FAULTS=1 $(GO_PLAIN) go test -count=1 -v -run '^TestPlantedFaults$$' -timeout 30m ./plugin/clusterset

# One target at a time, since "go test -fuzz" takes no more. When the time is up just as Go tries an input once more, it calls
# that a failure without an input that fails ("context deadline exceeded"): then it is tried once more.
fuzz: ## Run each fuzz target for FUZZTIME (10s)
	@grep -rEo --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' cmd plugin test \
	| sed -E 's#^(.*)/[^/]+:func (.*)#\1 \2#' \
	| while read -r dir target; do \
		echo "== fuzz $$target in $$dir for $(FUZZTIME)"; \
		out=$$(mktemp); \
		for try in 1 2; do \
			code=0; $(GO_PLAIN) go test -C "$$dir" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 100x . </dev/null >"$$out" 2>&1 || code=$$?; \
			cat "$$out"; \
			if [ $$code -eq 0 ] || grep -q 'Failing input' "$$out" || ! grep -q 'context deadline exceeded' "$$out"; then break; fi; \
		done; \
		rm -f "$$out"; \
		[ $$code -eq 0 ] || exit 1; \
	done

lint: $(LINTER) ## Check the source of both modules
	@echo "== lint the server's module"
	$(LINT) ./...
	@echo "== lint the module of the end-to-end tests"
	cd test && $(LINT) ./...

$(LINTER): tools/go.mod tools/go.sum
	@echo "== build golangci-lint (once, about a minute)"
	cd tools && $(GO_PLAIN) go build -o ../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

# No part of the tests: its database is fetched from vuln.go.dev, or from GOVULNDB (https://... or file:///...).
vulncheck: bin/govulncheck ## Look for known vulnerabilities in what the server is made of (needs the network)
	@$(GO_PLAIN) bin/govulncheck $(if $(GOVULNDB),-db $(GOVULNDB)) ./cmd/coredns || { code=$$?; [ $$code -eq 3 ] || \
		echo "govulncheck did not get as far as an answer: is its database reachable? GOVULNDB names another" >&2; exit $$code; }

bin/govulncheck: tools/go.mod tools/go.sum
	@echo "== build govulncheck (once)"
	cd tools && $(GO_PLAIN) go build -o ../$@ golang.org/x/vuln/cmd/govulncheck

# What goes into the image lies in bin/image/ARCH as it is there. Only who may write file capabilities, mostly root, can give the
# binary the one for port 53.
image: $(ARCH:%=image-%) ## Pack the binary into a container image (BUILDER, IMAGE, BASE, CACERTS, ARCH=arm64)

image-%:
	@echo "== build the server $(VERSION) for linux/$*, and a list of what it is made of: bin/sbom-$*.cdx.json"
	rm -rf bin/image/$* && mkdir -p bin/image/$*/etc/ssl/certs
	GOOS=linux GOARCH=$* $(GO_PLAIN) go build -ldflags "$(LDFLAGS)" -o bin/image/$*/coredns ./cmd/coredns
	$(GO_PLAIN) go run ./cmd/coredns/internal/sbom bin/image/$*/coredns >bin/sbom-$*.cdx.json
	@$(if $(CACERTS),cp $(CACERTS) bin/image/$*/etc/ssl/certs/ca-certificates.crt,echo "no CA certificates: give CACERTS=FILE, or BASE" >&2)
	@setcap cap_net_bind_service=+ep bin/image/$*/coredns || \
		echo "no file capability: port 53 needs a runtime or a sysctl that gives it to everybody" >&2
	$(BUILDER) build $(if $(BASE),--build-arg BASE=$(BASE)) --build-arg VERSION=$(VERSION) --build-arg ARCH=$* \
		--platform linux/$* -t $(IMAGE)$(if $(filter-out $*,$(ARCH)),-$*) .

clean: ## Remove what was built here
	rm -rf bin

# The race detector is the only thing that needs a C compiler.
gcc:
	@command -v "$$(go env CC)" >/dev/null || { \
		echo "the race detector needs a C compiler and \"$$(go env CC)\" is not installed:" >&2; \
		echo "install gcc, or set CC to the compiler you have" >&2; exit 1; }

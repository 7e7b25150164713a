# Thin names; what they do is in scripts/ and in the tests.
SHELL := /bin/bash
export PATH := $(PATH):/usr/local/go/bin:/usr/sbin:/sbin:/nix/var/nix/profiles/default/bin
export CGO_ENABLED := 0
VERSION := $(shell sed -n 's/^  version = "\(.*\)";/\1/p' pkgs/devhost.nix)
LDFLAGS := -s -w -X devhost/internal/cli/devhost.Version=$(VERSION) -X devhost/internal/cli/deploy.Version=$(VERSION) -X devhost/internal/cli/devbox.Version=$(VERSION)

# With Nix and without apt, everything runs in the development shell.
ifeq ($(shell command -v apt-get),)
ifneq ($(IN_NIX_SHELL),)
else ifneq ($(shell command -v nix),)
SHELL := $(CURDIR)/scripts/in-nix-shell
endif
endif

.PHONY: help build demo demo-down host-in-a-box host-in-a-box-down test e2e e2e-nixos e2e-vm bench lint fmt check-nix setup clean

help: ## say what there is
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s "$$(printf '\t')"

build: ## build bin/devhost
	@mkdir -p bin
	go build -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/...

setup: ## install what is missing (needs root)
	@MAKE_TARGET=setup scripts/setup run

demo: ## make a container, fetch its page, query its database (needs root)
	@MAKE_TARGET=demo scripts/setup run
	@$(MAKE) -s build
	@scripts/demo up

demo-down: build ## remove all that demo made
	@scripts/demo down

host-in-a-box: ## boot a whole dev host in a container, to look around (needs root)
	@MAKE_TARGET=host-in-a-box scripts/setup run
	@$(MAKE) -s build
	@scripts/host-in-a-box up

host-in-a-box-down: ## end it
	@scripts/host-in-a-box down

test: ## units and a quick end-to-end set (needs root)
	@MAKE_TARGET=test scripts/setup run
	@$(MAKE) -s build
	go test -count=1 -short -timeout 30m ./...

e2e: ## every end-to-end test (needs root)
	@MAKE_TARGET=e2e scripts/setup run
	@$(MAKE) -s build
	go test -count=1 -timeout 90m ./tests/... $$(grep -rl 'testing\.Short()' --include='*_test.go' internal | xargs dirname | sort -u | sed 's|^|./|')

e2e-nixos: ## boot NixOS' own modules, where DEVHOST_NIXPKGS has a tree (needs root)
	@$(MAKE) -s build
	@scripts/e2e-nixos

e2e-vm: ## boot VMs by QEMU (needs root for Nix)
	@MAKE_TARGET=e2e-vm scripts/setup vm
	@scripts/vm-kernel
	@$(MAKE) -s build
	DEVBOX_VM_TESTS=1 go test -count=1 -timeout 90m ./tests/vm

bench: ## measure, and print a table (needs root)
	@MAKE_TARGET=bench scripts/setup run
	@$(MAKE) -s build
	@scripts/bench

lint: ## golangci-lint, gofmt, shell scripts
	go tool -modfile=tools/go.mod golangci-lint run ./...
	@scripts/check-scripts

fmt: ## format Go
	gofmt -w $$(git ls-files '*.go')

check-nix: ## evaluate the Nix code
	@scripts/check-nix

clean: ## remove what was built
	rm -rf bin

# RocksDB takes tens of processor minutes to compile, so all targets below share one archive of it.
# That depends on three things, and scripts/check-one-archive checks it:
# - each call of cargo names the whole workspace: the features of a crate that build scripts use
#   depend on the selected packages, and another selection would compile RocksDB again;
# - all profiles build in the release directory (see the profiles in Cargo.toml);
# - warnings are denied with the flags of clippy and rustdoc. RUSTFLAGS would rebuild every crate.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build install install-docs run test prometheus fmt clippy cargo-test model doc bench dashboards

export CARGO_TARGET_DIR ?= $(HOME)/.cache/vbstore/target

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vbstore
# Written by scripts/setup: where libclang is, if it is not in a usual place.
with_env := if [ -f "$(cache)/env" ]; then . "$(cache)/env"; fi;

# The directory that `make install` installs to; packages prefix it with DESTDIR.
PREFIX ?= $(HOME)/.local
DESTDIR ?=

TEST_FLAGS ?=
BENCH_FLAGS ?=

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

setup: ## install what is missing: g++, libclang
	@echo "==> setup"
	@scripts/setup

build: ## build the program vbstore
	@echo "==> build"
	@$(with_env) cargo build --release --workspace --locked

install: build install-docs ## install the program, manual pages and completions in PREFIX (~/.local)
	@install -D "$(CARGO_TARGET_DIR)/release/vbstore" "$(DESTDIR)$(PREFIX)/bin/vbstore"

install-docs: build ## install only the manual pages and completions
	@echo "==> manual pages and completions in $(DESTDIR)$(PREFIX)/share"
	@share="$(DESTDIR)$(PREFIX)/share"; program="$(CARGO_TARGET_DIR)/release/vbstore"; \
	mkdir -p "$$share/bash-completion/completions" "$$share/zsh/site-functions" "$$share/fish/vendor_completions.d"; \
	"$$program" man "$$share/man/man1"; \
	"$$program" completions bash > "$$share/bash-completion/completions/vbstore"; \
	"$$program" completions zsh > "$$share/zsh/site-functions/_vbstore"; \
	"$$program" completions fish > "$$share/fish/vendor_completions.d/vbstore.fish"

run: setup build ## run a demo in ./run: import, stress, verify
	@echo "==> demo"
	@examples/run-demo.sh

test: setup prometheus fmt clippy cargo-test model doc ## check format, lints, all tests and documentation

prometheus: ## download Prometheus for the tests, if possible
	@echo "==> prometheus"
	@scripts/get-prometheus

fmt: ## check the format
	@echo "==> format"
	@cargo fmt --all --check

clippy: ## run the lints, with warnings denied
	@echo "==> lints"
	@$(with_env) cargo clippy --release --workspace --all-targets --locked -- -D warnings

# Includes the tests in the documentation.
cargo-test: ## run the tests
	@echo "==> tests"
	@$(with_env) cargo test --profile bench --workspace --locked $(TEST_FLAGS)

# Tests the core, and the sources of other crates that its tests include, with the locks and atomics
# of a model checker. Needs no RocksDB. Has its own target directory, because the other targets build
# the same crates with ordinary locks.
model: ## test many interleavings of the core, the scheduler and the branches
	@echo "==> model checking"
	@cargo clippy --release --package vbstore-core --features shuttle --all-targets --target-dir "$(CARGO_TARGET_DIR)/model" --locked -- -D warnings
	@cargo test --release --package vbstore-core --features shuttle --test interleavings --test scheduling --test branches --target-dir "$(CARGO_TARGET_DIR)/model" --locked
# The metrics with the feature `protobuf`, which another user of the crate prometheus may enable.
	@cargo test --release --package vbstore-metrics --features protobuf --target-dir "$(CARGO_TARGET_DIR)/model" --locked

doc: ## build the documentation, with warnings denied
	@echo "==> documentation"
	@$(with_env) RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked

dashboards: ## generate the dashboards from their table
	@cargo run --release --package vbstore-metrics --example dashboards --target-dir "$(CARGO_TARGET_DIR)/model" --locked

# In the profile that users build. The profile `bench`, used for the tests, has debug assertions that
# check the order of locks.
bench: ## run the benches
	@echo "==> benches"
	@$(with_env) cargo bench --profile release --workspace --locked $(BENCH_FLAGS)

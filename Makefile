# RocksDB takes tens of processor minutes to compile, so all that is below shares one archive of
# it. Three things keep it so, and scripts/check-one-archive counts:
# - each call of cargo names the whole workspace: the features of a crate that build scripts use
#   depend on the set of packages chosen, and another set would compile RocksDB once more;
# - all of it lives in the release directory (see the profiles in Cargo.toml);
# - warnings are denied by the flags of clippy and rustdoc. RUSTFLAGS would reach every crate.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup build install install-docs run test prometheus fmt clippy cargo-test model doc bench dashboards

export CARGO_TARGET_DIR ?= $(HOME)/.cache/vbstore/target

cache := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/vbstore
# Written by scripts/setup: where libclang is, if it is in no usual place.
with_env := if [ -f "$(cache)/env" ]; then . "$(cache)/env"; fi;

# Where `make install` puts what it installs; DESTDIR goes before it, for packages.
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

install-docs: build ## only install the manual pages and completions
	@echo "==> manual pages and completions in $(DESTDIR)$(PREFIX)/share"
	@share="$(DESTDIR)$(PREFIX)/share"; program="$(CARGO_TARGET_DIR)/release/vbstore"; \
	mkdir -p "$$share/bash-completion/completions" "$$share/zsh/site-functions" "$$share/fish/vendor_completions.d"; \
	"$$program" man "$$share/man/man1"; \
	"$$program" completions bash > "$$share/bash-completion/completions/vbstore"; \
	"$$program" completions zsh > "$$share/zsh/site-functions/_vbstore"; \
	"$$program" completions fish > "$$share/fish/vendor_completions.d/vbstore.fish"

run: setup build ## show it at work: import, stress, verify, in ./run
	@echo "==> demo"
	@examples/run-demo.sh

test: setup prometheus fmt clippy cargo-test model doc ## format, lints, all tests, documentation

prometheus: ## get Prometheus for the tests, if it can be had
	@echo "==> prometheus"
	@scripts/get-prometheus

fmt: ## only check the format
	@echo "==> format"
	@cargo fmt --all --check

clippy: ## only run the lints, warnings denied
	@echo "==> lints"
	@$(with_env) cargo clippy --release --workspace --all-targets --locked -- -D warnings

# Runs the tests in the documentation as well.
cargo-test: ## only run the tests
	@echo "==> tests"
	@$(with_env) cargo test --profile bench --workspace --locked $(TEST_FLAGS)

# The core, and sources of other crates that its tests include, with the locks and atomics of a model
# checker: needs no RocksDB, and must not be built where the rest is, which has the ordinary ones.
model: ## only try many interleavings of core, scheduler and branches
	@echo "==> model checking"
	@cargo clippy --release --package vbstore-core --features shuttle --all-targets --target-dir "$(CARGO_TARGET_DIR)/model" --locked -- -D warnings
	@cargo test --release --package vbstore-core --features shuttle --test interleavings --test scheduling --test branches --target-dir "$(CARGO_TARGET_DIR)/model" --locked
# And the figures as another user of prometheus may have them.
	@cargo test --release --package vbstore-metrics --features protobuf --target-dir "$(CARGO_TARGET_DIR)/model" --locked

doc: ## only build the documentation, warnings denied
	@echo "==> documentation"
	@$(with_env) RUSTDOCFLAGS="-D warnings" cargo doc --release --workspace --no-deps --locked

dashboards: ## write the dashboards from their table
	@cargo run --release --package vbstore-metrics --example dashboards --target-dir "$(CARGO_TARGET_DIR)/model" --locked

# In the profile that users build: the other has debug assertions, which check the order of locks.
bench: ## run the benches
	@echo "==> benches"
	@$(with_env) cargo bench --profile release --workspace --locked $(BENCH_FLAGS)

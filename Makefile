# The commands of the project. Continuous integration calls the same ones and nothing else.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help demo build test check conformance soak repeat fuzz bench release deb

# How long `make soak` soaks; the attacks after it take about 10 minutes.
SOAK_MINUTES ?= 60
# How long `make repeat` repeats the tests.
REPEAT_MINUTES ?= 30
# How many random inputs `make fuzz` gives each property test, and how long it runs each fuzz target.
CASES ?= 200000
FUZZ_SECONDS ?= 300

help: ## Lists these commands.
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 22

demo: ## Builds the gateway and starts it with sample servers, keys and policy.
	@scripts/needs build
	cargo run --locked --release -- demo

build: ## Builds target/release/portcullis.
	@scripts/needs build
	cargo build --locked --release

test: ## Everything that decides whether this tree is sound: lints, tests, costs, dependencies, the official suite.
	@scripts/test

check: ## The part of `make test` that runs nothing: format, lints, documentation, dependencies.
	@scripts/test needs fmt clippy default-features doc deny

conformance: ## The official MCP suite and clients through the gateway, with policy on.
	@scripts/test needs build conformance

soak: ## Mixed load with faults for SOAK_MINUTES, then every attack: does anything creep, does anything break?
	@scripts/soak $(SOAK_MINUTES)

repeat: ## Repeats the tests for REPEAT_MINUTES, until one fails.
	@scripts/repeat $(REPEAT_MINUTES)

fuzz: ## Random inputs: CASES for each property test, FUZZ_SECONDS for each fuzz target.
	@scripts/fuzz $(CASES) $(FUZZ_SECONDS)

bench: ## Measures: the benchmarks, and the tests that are measurements.
	@scripts/needs build
	cargo bench --locked
	cargo test --locked --release --lib -- --ignored --nocapture --test-threads=1

release: ## Builds target/dist/portcullis as it is published, with its SHA-256 and its bill of materials (CycloneDX).
	@scripts/package release

deb: ## Builds target/debian/portcullis_*.deb: the program, units, man pages, completions, a configuration.
	@scripts/package deb

# make demo   the main job on real music, offline, in its own virtual environment;
#             make demo-train learns songs from scratch
# make test   all quick tests; make test-slow the others; make test-default the numeric ones with XLA's own optimization;
#             make test-all all of these, with Beam, a browser and shellcheck, and the peers where they are named; it
#             fails if anything is skipped; make lint; make wheel-check; make demo-check the scores of the demo;
#             make docs-check the shell lines of the documentation;
#             make cache-env a virtual environment for mrmt3 dataset cache, make test-cache its tests;
#             make test-peers those that run t5x and magenta/mt3, if their checkouts are named
#             (tests/peers/test_real_peers.py);
#             make report-check the report of scores in a browser (Debian: apt-get install chromium);
#             make page-check the page of mrmt3 serve in a browser, from a dropped file to an exported one;
#             make api-check requests of all kinds against mrmt3 serve, with schemathesis in its own environment
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
CACHE_VENV ?= .venv-cache
PIP = $(BIN)/python -m pip --disable-pip-version-check -q

# Tests that may be skipped in a run of all quick tests: Beam's module, shellcheck, the browser, real Slakh tracks, mount.
MAX_SKIPS ?= 20
PEERS = $(and $(MRMT3_T5X),$(MRMT3_MT3),$(MRMT3_PEER_PYTHON))
# What computes with networks, for one pass as users' programs are compiled.
NUMERIC = tests/test_network.py tests/test_mt3_network.py tests/test_spectrograms.py tests/nn tests/decoding \
  tests/framewise/test_network.py tests/hybrid/test_decoder.py tests/inference/test_bundled_model.py \
  tests/inference/test_streaming.py tests/checkpoints/test_conversion.py tests/training/test_resume.py

.PHONY: demo demo-train demo-check wheel-check test test-slow test-default test-all lint docs-check report-check \
  page-check api-check test-peers cache-env test-cache clean
.SECONDARY:

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: .venv/demo.done, .venv/test.done
$(VENV)/%.done: setup.py | $(VENV)/bin/python
	@echo "installing mrmt3[$*] into $(VENV) (a few minutes the first time)"
	$(PIP) install -e '.[$*]'
	@touch $@

demo: $(VENV)/demo.done
	$(BIN)/mrmt3 demo -o demo

demo-train: $(VENV)/demo.done
	$(BIN)/mrmt3 demo --train -o demo

test: $(VENV)/test.done
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m 'not slow' --max-skips $(MAX_SKIPS)

test-slow: $(VENV)/test.done
	$(BIN)/python -m pytest -q -m slow

test-default: $(VENV)/test.done
	MRMT3_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile -m 'not slow' --max-skips 0 $(NUMERIC)

# Beam has an environment of its own, and the peers run where their checkouts are named.
test-all: $(VENV)/test.done
	@command -v shellcheck >/dev/null || { echo 'make test-all needs shellcheck (Debian: apt-get install shellcheck)'; exit 1; }
	MRMT3_BROWSER_NEEDED=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal --max-skips 0 \
	  --ignore tests/data/test_task_cache.py --ignore tests/peers
	$(MAKE) test-default test-cache
	$(if $(PEERS),$(MAKE) test-peers,@echo 'the peers are not named: tests/peers did not run')

wheel-check: $(VENV)/test.done
	.ci/check_wheel.sh $(BIN)/python

demo-check: demo
	$(BIN)/python .ci/check_demo.py demo/scores.json

lint: $(VENV)/test.done
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .

docs-check: $(VENV)/test.done
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python .ci/check_docs.py README.md docs/data.md docs/engine.md \
	  docs/fidelity.md docs/checkpoints.md docs/metrics.md docs/extending.md docs/scaling.md docs/transcribe.md \
	  docs/method.md docs/score.md docs/serve.md docs/real.md docs/model-card/README.md

report-check: $(VENV)/test.done
	MRMT3_BROWSER_NEEDED=1 $(BIN)/python -m pytest -q -rs tests/evaluation/test_report_browser.py

# Accessibility is checked with axe-core, if npm brings it.
AXE = .venv-axe/node_modules/axe-core/axe.min.js
$(AXE):
	npm install --silent --no-audit --no-fund --prefix .venv-axe axe-core

page-check: $(VENV)/test.done $(if $(shell command -v npm),$(AXE))
	MRMT3_BROWSER_NEEDED=1 $(if $(shell command -v npm),MRMT3_AXE=$(AXE)) $(BIN)/python -m pytest -q -rs tests/web/test_page_browser.py

# An environment of its own: it is no part of mrmt3's tests, and brings a lot.
.venv-api/bin/st:
	$(PYTHON) -m venv .venv-api
	.venv-api/bin/python -m pip --disable-pip-version-check -q install schemathesis

api-check: $(VENV)/test.done .venv-api/bin/st
	PATH="$(CURDIR)/$(BIN):$(CURDIR)/.venv-api/bin:$$PATH" $(BIN)/python .ci/check_api.py

test-peers: $(VENV)/test.done
	$(BIN)/python -m pytest -q --max-skips 0 tests/peers/test_real_peers.py

# Beam wants an older protobuf than the other extras would take.
cache-env:
	$(MAKE) VENV=$(CACHE_VENV) $(CACHE_VENV)/cache.done

test-cache: cache-env
	$(CACHE_VENV)/bin/python -m pip --disable-pip-version-check -q install pytest
	$(CACHE_VENV)/bin/python -m pytest -q --max-skips 0 tests/data/test_task_cache.py

clean:
	rm -rf $(VENV) $(CACHE_VENV) .venv-api .venv-axe demo build dist *.egg-info

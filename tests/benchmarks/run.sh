#!/usr/bin/env bash
# All benchmarks, one JSON document each. BENCH_DATA names a folder of public labelled sets; see docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
observe=.venv/bin/observe python=.venv/bin/python

say() { echo "== $*" >&2; }

say "ingest, local stream and chDB"
"$observe" bench ingest --json
say "ingest, Kafka and a ClickHouse server"
"$python" -m tests.benchmarks.ingest_servers
say "ingest beside the OpenTelemetry Collector and a Python loop, on the same records and tables"
"$python" -m tests.benchmarks.rivals --json
say "the same, with each pipeline killed twice"
"$python" -m tests.benchmarks.rivals --json --spans 400000 --kills 2 --only collector_readme collector_tuned python_loop observe_full
say "a real Collector feeds our topics"
"$python" -m pytest -q -p no:cacheprovider -m collector tests/integration/test_feeders.py
say "receivers: OTLP/gRPC to Kafka"
"$python" -m tests.benchmarks.rivals.receive --json
say "spans into their tables: one thread, several processes beside a server, and what settling adds"
"$python" -m tests.benchmarks.writer_alone
"$python" -m tests.benchmarks.writer_processes
"$python" -m tests.benchmarks.settling
say "metric points into their tables"
"$python" -m tests.benchmarks.writer_alone --signal metrics
say "memory over minutes of steady load"
"$python" -m tests.benchmarks.memory | tail -n 1
"$python" -m tests.benchmarks.memory --deployment server | tail -n 1
say "random OTLP requests through both stores, compared field by field"
OTLP_EXAMPLES=500 "$python" -m pytest -q -p no:cacheprovider tests/contract/otlp/test_complete.py
say "one look by number of series, SQL apart, rivals"
"$observe" bench detect --json
say "detection on simulated services"
"$python" -m tests.benchmarks.detect_simulation
say "what earlier nights cost to ask, and what asking them does"
"$python" -m tests.benchmarks.history
"$python" -m tests.benchmarks.seasons
say "from what was noticed to ranked causes, by size"
"$observe" bench diagnose --json
say "diagnosis on made-up recordings"
"$observe" bench diagnose --made-up 70 --json
say "diagnosis on simulated fleets"
"$python" -m tests.benchmarks.diagnose_fleets --cases 26 --mixed
say "from OTLP to the first cause, random fleets"
"$python" -m tests.benchmarks.replay_fleets --seeds 105 109 114 116
if [ -n "${BENCH_DATA:-}" ]; then
  for set in "$BENCH_DATA"/*/; do
    case $(basename "$set") in
      nab-*) say "detect: $set"; "$observe" bench detect --data "$set" --json ;;
      loads) ;;
      *) say "diagnose: $set"; "$observe" bench diagnose --data "$set" --json ;;
    esac
  done
fi

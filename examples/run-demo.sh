#!/usr/bin/env bash
# Demonstrates vbstore: imports real records, writes and reads under load while streams follow,
# and verifies both stores. All its output is in ./run. "make run" builds vbstore and runs this.
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

vbstore="${CARGO_TARGET_DIR:-$HOME/.cache/vbstore/target}/release/vbstore"
records=examples/sample.jsonl
seconds="${DEMO_SECONDS:-30}"
report=./run/stress.json

# Runs vbstore with the arguments after NAME. Prints its output and copies it to ./run/NAME.log.
step() {
  local name=$1
  shift
  printf '\n$ vbstore %s\n' "$*"
  if ! "$vbstore" "$@" | tee "./run/$name.log"; then
    printf 'run-demo: vbstore %s failed\n' "$1" >&2
    exit 1
  fi
}

# Prints the last non-empty line that a step printed.
last_line() { grep '[^[:space:]]' "./run/$1.log" | tail -n 1 || echo '(nothing)'; }

# Prints a number from the stress report.
report_number() {
  local value
  value="$(grep -o "\"$1\"[[:space:]]*:[[:space:]]*-\?[0-9][0-9.eE+-]*" "$report" | head -n 1)" || {
    printf 'run-demo: %s has no number "%s"\n' "$report" "$1" >&2
    exit 1
  }
  printf '%s\n' "${value##*[: ]}"
}

[ -x "$vbstore" ] || {
  printf 'run-demo: %s is not built; run "make run"\n' "$vbstore" >&2
  exit 1
}
mkdir -p ./run
rm -rf ./run/demo ./run/churn
rm -f "$report" ./run/{import,stress,verify-demo,verify-churn}.log

step import import --dir ./run/demo --vbuckets 64 --key name "$records"
step stress stress --dir ./run/churn --seconds "$seconds" --seed 1 --writers 8 --vbuckets 64 \
  --streams 16 --frozen 3 --slow 1 --reconnect-every 2000 --memory-mib 8 --json "$report"
step verify-demo verify --dir ./run/demo
step verify-churn verify --dir ./run/churn

operations="$(report_number operations)"
lost="$(report_number lost)"
age_ms="$(report_number worst_db_snapshot_age_ms)"

cat <<EOF

In short
  import        $(last_line import)
  stress        $operations operations in $seconds s, $lost acknowledged writes lost
  streams       $(report_number complete_markers_compared) copies compared at the ends of snapshots, all equal
  db snapshots  the oldest ever open was $age_ms ms old
  verify demo   $(last_line verify-demo)
  verify churn  $(last_line verify-churn)
EOF
[ "$lost" = 0 ] || {
  printf 'run-demo: acknowledged writes were lost\n' >&2
  exit 1
}

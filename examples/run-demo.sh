#!/usr/bin/env bash
# Shows vbstore at work: imports real records, writes and reads under load while streams follow,
# and verifies both stores. Everything it leaves is in ./run. Run by "make run".
set -euo pipefail
cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."

vbstore="${CARGO_TARGET_DIR:-$HOME/.cache/vbstore/target}/release/vbstore"
records=examples/sample.jsonl
seconds="${DEMO_SECONDS:-30}"
report=./run/stress.json

# Runs vbstore, shows what it prints and keeps it in ./run/NAME.log.
step() {
  local name=$1
  shift
  printf '\n$ vbstore %s\n' "$*"
  if ! "$vbstore" "$@" | tee "./run/$name.log"; then
    printf 'run-demo: vbstore %s failed\n' "$1" >&2
    exit 1
  fi
}

# Prints the last line that is not empty of what a step printed.
said() { grep '[^[:space:]]' "./run/$1.log" | tail -n 1 || echo '(nothing)'; }

# Prints a number of the stress report.
figure() {
  local value
  value="$(grep -o "\"$1\"[[:space:]]*:[[:space:]]*-\?[0-9][0-9.eE+-]*" "$report" | head -n 1)" || {
    printf 'run-demo: %s holds no number "%s"\n' "$report" "$1" >&2
    exit 1
  }
  printf '%s\n' "${value##*[: ]}"
}

[ -x "$vbstore" ] || {
  printf 'run-demo: there is no %s; run "make run"\n' "$vbstore" >&2
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

operations="$(figure operations)"
lost="$(figure lost)"
age_ms="$(figure worst_db_snapshot_age_ms)"

cat <<EOF

In short
  import        $(said import)
  stress        $operations operations in $seconds s, $lost acknowledged writes lost
  streams       $(figure complete_markers_compared) copies compared at complete markers, all equal
  db snapshots  the oldest ever open was $age_ms ms old
  verify demo   $(said verify-demo)
  verify churn  $(said verify-churn)
EOF
[ "$lost" = 0 ] || {
  printf 'run-demo: acknowledged writes were lost\n' >&2
  exit 1
}

#!/usr/bin/env bash
# One distinct text a request through wrk: bench/wrk/run.sh [URL] [CONNECTIONS] [SECONDS]
# Install where missing: sudo apt-get install wrk
set -euo pipefail
url=${1:-http://localhost:8080}
connections=${2:-10}
seconds=${3:-10}
threads=$(nproc)
((threads <= connections)) || threads=$connections

command -v wrk >/dev/null || { echo "wrk is missing: sudo apt-get install wrk" >&2; exit 2; }
exec wrk --threads "$threads" --connections "$connections" --duration "${seconds}s" \
  --timeout 30s --latency --script "$(dirname "$0")/text.lua" "$url"

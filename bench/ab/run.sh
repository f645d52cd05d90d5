#!/usr/bin/env bash
# One text through ab: bench/ab/run.sh [URL] [CONCURRENCY] [REQUESTS]
# ab sends the same body again and again, so the cache is told to stay out of it (no-cache).
# Install where missing: sudo apt-get install apache2-utils
set -euo pipefail
url=${1:-http://localhost:8080}
concurrency=${2:-10}
requests=${3:-100}

command -v ab >/dev/null || { echo "ab is missing: sudo apt-get install apache2-utils" >&2; exit 2; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
echo '{"input":"a photo of a red circle on a white background","encoding_format":"base64"}' >"$folder/body.json"
ab -k -q -l -s 30 -n "$requests" -c "$concurrency" -p "$folder/body.json" -T application/json \
  -H 'Cache-Control: no-cache' "${url%/}/v1/embeddings" | tee "$folder/report"
# ab itself ends with 0 whatever was answered.
if grep -qE '^Non-2xx responses|^Failed requests: +[1-9]' "$folder/report"; then
  echo "some requests failed" >&2
  exit 1
fi

#!/usr/bin/env bash
# The wheels that a bare GPU machine lacks, in the versions that run here: bench/gpu/wheels.sh [FOLDER]
# For Python 3.12 on x86-64. torch, what CUDA brings and transformers with its libraries are that
# machine's own. What the folder held before is replaced. Fails above 64 MiB, with everything in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-build/wheels}
python=${PYTHON:-.venv/bin/python}
most=$((64 << 20))
names=(
  litserve pyzmq fastapi fastapi-offline starlette python-multipart uvicorn httptools
  pydantic pydantic-core annotated-types typing-inspection orjson pybase64 python-json-logger
  asgiref googleapis-common-protos opentelemetry-{api,sdk,proto,instrumentation,instrumentation-asgi}
  opentelemetry-{semantic-conventions,util-http,exporter-http-transport,exporter-otlp-common}
  opentelemetry-exporter-otlp-proto-{common,http} redis hiredis torchao
)
pins=$("$python" -c 'if True:
  import sys
  from importlib.metadata import version
  print(*(f"{name}=={version(name)}" for name in sys.argv[1:]))' "${names[@]}")
platforms=()
for glibc in 2_28 2_27 2_26 2_24 2_17 2_12 2_5; do platforms+=(--platform "manylinux_${glibc}_x86_64"); done

mkdir -p "$folder"
rm -f "$folder"/*.whl
# shellcheck disable=SC2086 # one word a pin
"$python" -m pip download --quiet --no-deps --only-binary :all: --dest "$folder" \
  --python-version 3.12 --implementation cp "${platforms[@]}" --platform manylinux2014_x86_64 $pins
size=$(cat "$folder"/*.whl | wc -c)
echo "$folder: ${#names[@]} wheels, $((size / 1000000)) MB of $((most / 1000000))"
((size <= most)) || { echo "too large to be brought along" >&2; exit 1; }

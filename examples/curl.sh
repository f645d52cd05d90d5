#!/usr/bin/env bash
# Every route with curl alone.
#
#     examples/curl.sh [http://localhost:8080] [picture.png]
#
# Without a picture of yours, a red dot of 5 × 5 pixels is sent.
set -euo pipefail
url=${1:-http://localhost:8080}
picture=${2:-}
if [ -z "$picture" ]; then
  picture=$(mktemp --suffix=.png)
  trap 'rm -f "$picture"' EXIT
  base64 -d >"$picture" <<<"iVBORw0KGgoAAAANSUhEUgAAAAUAAAAFCAYAAACNbyblAAAAHElEQVQI12P4//8/w38GIAXDIBKE0DHxgljNBAAO9TXL0Y4OHwAAAABJRU5ErkJggg=="
fi
ask() { echo "# $1"; shift; curl --silent --show-error --fail-with-body "$@" | cut -c -300; echo; }
bytes=$(base64 -w0 "$picture")

ask "one text"             "$url/embed_text" -d '{"text": "a red circle", "dimensions": 4}'
ask "texts, int8"          "$url/embed_text" -d '{"texts": ["a red circle", "a blue star"], "dimensions": 8, "embedding_type": "int8"}'
ask "an image as it is"    "$url/embed_image?dimensions=4" -H 'content-type: image/png' --data-binary "@$picture"
ask "images in a form"     "$url/embed_image" -F "images=@$picture" -F "images=@$picture" -F dimensions=4
ask "an image in JSON"     "$url/embed_image" -d "{\"image\": \"$bytes\", \"encoding_format\": \"base64\"}"
ask "OpenAI form"          "$url/v1/embeddings" -d "{\"input\": [\"a red circle\", \"data:image/png;base64,$bytes\"], \"dimensions\": 4}"
ask "score"                "$url/score" -d "{\"texts\": [\"a red circle\"], \"images\": [\"$bytes\"]}"
ask "classify"             "$url/classify" -d "{\"image\": \"$bytes\", \"labels\": [\"red\", \"blue\"]}"
ask "what is served"       "$url/v1/models"
echo "# raw float32: bytes of one text's vector"
curl --silent --fail "$url/embed_text" -H 'accept: application/octet-stream' -d '{"text": "a red circle"}' | wc -c

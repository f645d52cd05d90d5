-- POST /v1/embeddings with a new text each time, the work of `python -m bench.load`.
-- wrk runs a closed loop and counts latency from the send: it cannot see coordinated omission.

local COLOURS = { "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown" }
local SHAPES = { "circle", "ring", "square", "triangle", "star", "cross", "heart", "moon" }
local BODY = '{"input":"a photo of a %s %s on a white background, %d-%d-%d","encoding_format":"base64"}'

local threads = 0
local failed, busy, sent, run

function setup(thread)
  thread:set("thread_number", threads)
  threads = threads + 1
  all = all or {}
  table.insert(all, thread)
end

function init()
  wrk.method = "POST"
  wrk.path = "/v1/embeddings"
  wrk.headers["Content-Type"] = "application/json"
  sent, failed_count, busy_count = 0, 0, 0
  run = os.time() -- so that no run meets the cache of the run before
end

function request()
  sent = sent + 1
  local colour = COLOURS[sent % #COLOURS + 1]
  local shape = SHAPES[math.floor(sent / #COLOURS) % #SHAPES + 1]
  wrk.body = string.format(BODY, colour, shape, run, thread_number, sent)
  return wrk.format()
end

function response(status, headers, body)
  if status == 429 then
    busy_count = busy_count + 1
  elseif status ~= 200 or not string.find(body, '"embedding": ?"') then
    failed_count = failed_count + 1
  end
end

function done(summary, latency)
  failed, busy = 0, 0
  for _, thread in ipairs(all) do
    failed = failed + thread:get("failed_count")
    busy = busy + thread:get("busy_count")
  end
  local lost = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  local seconds = summary.duration / 1e6
  io.write(string.format(
    '{"tool":"wrk","requests":%d,"rps":%.2f,"mean_ms":%.3f,"p50_ms":%.3f,"p95_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"failed":%d,"busy":%d,"lost":%d}\n',
    summary.requests, summary.requests / seconds, latency.mean / 1e3,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, failed, busy, lost))
  if failed + lost > 0 then
    os.exit(1)
  end
end

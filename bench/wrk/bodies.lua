-- The same requests again and again, as fast as they are answered: what bench.micro.barrage does by wrk.
-- Arguments behind "--": METHOD PATH ACCEPT FILE; FILE holds one JSON body a line. They are put
-- together once, so that sending costs next to nothing.

local requests, at = {}, 0

function init(args)
  local headers = { ["Content-Type"] = "application/json", ["Accept"] = args[3] }
  if args[1] == "GET" then
    headers = {}
    requests[1] = wrk.format("GET", args[2], headers)
    return
  end
  for body in io.lines(args[4]) do
    requests[#requests + 1] = wrk.format(args[1], args[2], headers, body)
  end
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary)
  local errors = summary.errors
  local failed = errors.status + errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format('{"requests":%d,"seconds":%.6f,"failed":%d}\n',
    summary.requests, summary.duration / 1e6, failed))
end

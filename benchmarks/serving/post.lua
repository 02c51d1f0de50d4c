-- wrk script: send whole requests of a file in turn.   wrk -s post.lua URL -- FILE
-- The file holds, for each: ten digits of length, then the request as it goes over the wire.
local requests, at = {}, 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local digits = file:read(10)
    if not digits then break end
    requests[#requests + 1] = file:read(tonumber(digits))
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  print(string.format(
    'RESULT {"requests":%d,"seconds":%.6f,"errors":%d,"error_kinds":{"status":%d,"timeout":%d,"socket":%d},' ..
    '"p50_ms":%.4f,"p99_ms":%.4f,"max_ms":%.4f}',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    errors.status, errors.timeout, errors.connect + errors.read + errors.write,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3))
end

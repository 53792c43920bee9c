-- What wrk sends: heads from a file (its first argument; without one, wrk's own), and the figures as one line of JSON.
local heads, ends, at, number = {}, {}, 0, 0

-- The URL's host is a preview's, because wrk names it in the TLS handshake; all of them are on this machine.
local resolve = wrk.resolve
function wrk.resolve(_, service)
  resolve("127.0.0.1", service)
end

function init(args)
  if #args == 0 then return end
  local file = assert(io.open(args[1], "rb"))
  for head in file:read("*a"):gmatch("[^%z]+") do
    local start, rest = head:match("^(.-)\1(.*)$")
    heads[#heads + 1] = start or head
    ends[#heads] = rest
  end
  file:close()
  request = ends[1] and unique or same
end

function same()
  at = at % #heads + 1
  return heads[at]
end

function unique()
  at = at % #heads + 1
  number = number + 1
  return heads[at] .. string.format("%010d", number) .. ends[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "seconds": %.6f, "bytes": %d, "errors": %d, "p50_us": %d, "p99_us": %d}\n',
    summary.requests, summary.duration / 1e6, summary.bytes,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end

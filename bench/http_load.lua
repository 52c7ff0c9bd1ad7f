-- wrk's requests: PUT or GET of one of KEYS keys, in EdgeKV's HTTP interface or in etcd's JSON gateway.
--
--   wrk -s http_load.lua URL -- edgekv|etcd put|get KEYS VALUE_BYTES
--
-- All requests are built before the clock starts: base64 in Lua for each request would load the two cores that the
-- servers need, and etcd's more than ours. `done` prints one JSON line.

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local out = {}
  for at = 1, #text, 3 do
    local a, b, c = text:byte(at, at + 2)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    for place = 3, 0, -1 do
      local six = math.floor(bits / 64 ^ place) % 64
      local padding = (place == 1 and not b) or (place == 0 and not c)
      out[#out + 1] = padding and "=" or ALPHABET:sub(six + 1, six + 1)
    end
  end
  return table.concat(out)
end

local function request_of(server, action, key, value)
  if server == "edgekv" then
    if action == "put" then return wrk.format("PUT", "/v1/kv/" .. key, nil, value) end
    return wrk.format("GET", "/v1/kv/" .. key)
  end
  local headers = { ["Content-Type"] = "application/json" }
  if action == "put" then
    local body = string.format('{"key":"%s","value":"%s"}', base64(key), base64(value))
    return wrk.format("POST", "/v3/kv/put", headers, body)
  end
  return wrk.format("POST", "/v3/kv/range", headers, string.format('{"key":"%s"}', base64(key)))
end

local requests = {}

function init(arguments)
  local server, action, keys, value_bytes = arguments[1], arguments[2], tonumber(arguments[3]), tonumber(arguments[4])
  local value = string.rep("x", value_bytes)
  for number = 0, keys - 1 do
    requests[#requests + 1] = request_of(server, action, string.format("key-%012d", number), value)
  end
  math.randomseed(1)
end

function request()
  return requests[math.random(#requests)]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_s":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"bad_statuses":%d,"broken":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    latency.max / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end

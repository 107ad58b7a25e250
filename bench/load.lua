-- What wrk sends, and how it reports. Everything comes by environment variables, so that the token stands on no
-- command line: BENCH_HEAD (request line and headers up to the value of Content-Length), BENCH_BODY (the order with
-- its marks), BENCH_RUN, BENCH_CUSTOMERS and, for a paced run, BENCH_RATE (requests a second).

local ffi = require("ffi")

ffi.cdef [[
  typedef struct { long seconds; long nanoseconds; } bench_instant;
  int clock_gettime(int clock, bench_instant *now);
]]

local CLOCK_MONOTONIC = 1
local instant = ffi.new("bench_instant")

local head = os.getenv("BENCH_HEAD")
local run = os.getenv("BENCH_RUN")
local customers = tonumber(os.getenv("BENCH_CUSTOMERS"))
local rate = tonumber(os.getenv("BENCH_RATE") or "")

-- The body in pieces: literal text, with "order" or "customer" marks between.
local pieces, marks = {}, {}
do
  local body, from = os.getenv("BENCH_BODY"), 1
  for before, mark, after in body:gmatch("()@(%a+)@()") do
    pieces[#pieces + 1] = body:sub(from, before - 1)
    marks[#marks + 1] = mark
    from = after
  end
  pieces[#pieces + 1] = body:sub(from)
end

local number = 0
local filled = {}

request = function()
  number = number + 1
  local order = run .. "-" .. number
  local customer = "customer-" .. number % customers
  for i = 1, #marks do
    filled[2 * i - 1] = pieces[i]
    filled[2 * i] = marks[i] == "order" and order or customer
  end
  filled[2 * #marks + 1] = pieces[#pieces]
  local body = table.concat(filled)
  return head .. #body .. "\r\n\r\n" .. body
end

-- Paced: every connection that is free takes the next place in one evenly spaced timetable and waits for it.
if rate then
  local due = nil
  delay = function()
    ffi.C.clock_gettime(CLOCK_MONOTONIC, instant)
    local now = tonumber(instant.seconds) * 1e3 + tonumber(instant.nanoseconds) / 1e6
    due = (due or now) + 1e3 / rate
    return math.max(0, math.floor(due - now + 0.5))
  end
end

done = function(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,'
      .. '"refused":%d,"timed_out":%d,"broken":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
    latency.max, errors.status, errors.timeout, errors.connect + errors.read + errors.write
  ))
end

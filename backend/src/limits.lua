-- GCRA, the leaky bucket as one number per key: the time (in microseconds) at which the bucket would
-- be empty. KEYS: the buckets. ARGV: for each, the interval of one request and how many fit at once.
-- Answers 0 (go on, and every bucket was charged), the seconds to wait (nothing was charged), or -1
-- (Redis is full).
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local empty_at, wait = {}, 0
for i, key in ipairs(KEYS) do
  local interval, burst = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
  local empty = tonumber(redis.call('GET', key) or 0)
  -- Nothing is let in beyond the burst, so a bucket that is further ahead was charged by a clock that
  -- has been put back since: it would lock everybody out until the clock is there again.
  if empty - now > burst * interval then
    empty = 0
  end
  empty = math.max(empty, now) + interval
  empty_at[i] = empty
  wait = math.max(wait, empty - burst * interval - now)
end
if wait > 0 then
  return math.ceil(wait / 1000000)
end
for i, key in ipairs(KEYS) do
  local left = math.ceil((empty_at[i] - now) / 1000)
  local answer = redis.pcall('SET', key, string.format('%.0f', empty_at[i]), 'PX', left)
  if answer.err then
    return -1
  end
end
return 0

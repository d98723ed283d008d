-- Starts a session and notes it in its account's list.
-- KEYS: what a record's key begins with, the list.
-- ARGV: hash, record, idle s, absolute s, now, most per account.
--
-- First the write that a full Redis refuses: after it nothing can fail, before it nothing is done.
redis.call('SET', KEYS[1] .. ARGV[1], ARGV[2], 'EX', ARGV[3])
-- Redis forgets records by itself; their lines in the list go here.
for _, hash in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if redis.call('EXISTS', KEYS[1] .. hash) == 0 then
    redis.call('ZREM', KEYS[2], hash)
  end
end
-- Before the new one is in the list: by a clock that was put back it would be the oldest, and end itself.
local surplus = redis.call('ZCARD', KEYS[2]) + 1 - tonumber(ARGV[6])
if surplus > 0 then
  for _, hash in ipairs(redis.call('ZRANGE', KEYS[2], 0, surplus - 1)) do
    redis.call('DEL', KEYS[1] .. hash)
    redis.call('ZREM', KEYS[2], hash)
  end
end
redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
-- No session outlives this, so neither need the list.
redis.call('EXPIRE', KEYS[2], ARGV[4])

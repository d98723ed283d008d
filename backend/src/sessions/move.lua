-- Gives a session the name that the current key makes of its id; it stays the same session.
-- KEYS: the record under the previous name, and under the current one. ARGV: both hashes, idle s.
local record = redis.call('GET', KEYS[1])
if not record then
  return false
end
-- The write that a full Redis refuses comes first: then nothing has changed.
redis.call('SET', KEYS[2], record, 'EX', ARGV[3])
redis.call('DEL', KEYS[1])
local list = 'sessions-of:' .. string.format('%.0f', cjson.decode(record).account_id)
local began = redis.call('ZSCORE', list, ARGV[1])
if began then
  redis.call('ZREM', list, ARGV[1])
  redis.call('ZADD', list, began, ARGV[2])
end
return record

-- Finds a session under the hashes of previous keys and moves it to that of the current key, its line
-- in the list too.
-- KEYS: what a record's key begins with, what a list's key begins with.
-- ARGV: idle s, the current hash, the previous hashes.
--
-- Another request may have moved it since it was looked for.
local current = redis.call('GETEX', KEYS[1] .. ARGV[2], 'EX', ARGV[1])
if current then
  return current
end
for i = 3, #ARGV do
  local record = redis.call('GETEX', KEYS[1] .. ARGV[i], 'EX', ARGV[1])
  if record then
    -- A full Redis refuses this. Then the session stays where it is, and the next use tries again.
    if not redis.pcall('SET', KEYS[1] .. ARGV[2], record, 'EX', ARGV[1]).err then
      local session = cjson.decode(record)
      local list = KEYS[2] .. string.format('%.0f', session.account_id)
      redis.call('ZADD', list, session.created, ARGV[2])
      redis.call('ZREM', list, ARGV[i])
      redis.call('DEL', KEYS[1] .. ARGV[i])
    end
    return record
  end
end
return false

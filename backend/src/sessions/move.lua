-- Finds a session under the hashes of previous keys and moves it to that of the current key, its line
-- in the list too.
-- KEYS: what a record's key begins with, what a list's key begins with.
-- ARGV: idle s, the current hash, the previous hashes.
--
-- A Redis that takes no write can be read all the same.
local function find(hash)
  local found = redis.pcall('GETEX', KEYS[1] .. hash, 'EX', ARGV[1])
  if type(found) == 'table' and found.err then
    return redis.call('GET', KEYS[1] .. hash)
  end
  return found
end

-- Another request may have moved it since it was looked for.
local current = find(ARGV[2])
if current then
  return current
end
for i = 3, #ARGV do
  local record = find(ARGV[i])
  if record then
    -- A full Redis refuses this, and one that takes no write. Then the session stays where it is, and the next use tries again.
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

-- An account's sessions: hash, record, seconds left; three values for each.
-- KEYS: what a record's key begins with, the list.
local found = {}
for _, hash in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local record = redis.call('GET', KEYS[1] .. hash)
  if record then
    found[#found + 1] = hash
    found[#found + 1] = record
    found[#found + 1] = tostring(redis.call('TTL', KEYS[1] .. hash))
  end
end
return found

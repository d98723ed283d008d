-- An account's sessions: hash, record, seconds left; three values for each. KEYS: the list.
local found = {}
for _, hash in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local record = redis.call('GET', 'session:' .. hash)
  if record then
    found[#found + 1] = hash
    found[#found + 1] = record
    found[#found + 1] = tostring(redis.call('TTL', 'session:' .. hash))
  end
end
return found

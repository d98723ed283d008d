-- Ends an account's sessions, except that of some hashes.
-- KEYS: what a record's key begins with, the list. ARGV: the hashes to keep, if any.
local keep = {}
for _, hash in ipairs(ARGV) do
  keep[hash] = true
end
local ended = 0
for _, hash in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if not keep[hash] then
    ended = ended + redis.call('DEL', KEYS[1] .. hash)
    redis.call('ZREM', KEYS[2], hash)
  end
end
return ended

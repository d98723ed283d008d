-- Ends an account's sessions, except that of a hash (or of none: ''). KEYS: the list. ARGV: hash.
local ended = 0
for _, hash in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  if hash ~= ARGV[1] then
    ended = ended + redis.call('DEL', 'session:' .. hash)
    redis.call('ZREM', KEYS[1], hash)
  end
end
return ended

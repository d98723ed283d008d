-- Ends a session, whoever's it is, under whichever of its hashes it stands.
-- KEYS: what a record's key begins with, what a list's key begins with. ARGV: hashes.
for _, hash in ipairs(ARGV) do
  local record = redis.call('GETDEL', KEYS[1] .. hash)
  if record then
    redis.call('ZREM', KEYS[2] .. string.format('%.0f', cjson.decode(record).account_id), hash)
  end
end

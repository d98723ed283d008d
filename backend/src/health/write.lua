-- Writes a key and takes it away again. Answers why Redis takes no write, or nothing. KEYS: the key.
local refused = redis.pcall('SET', KEYS[1], '1', 'PX', 1000).err
if refused then
  return refused
end
redis.call('DEL', KEYS[1])
return ''

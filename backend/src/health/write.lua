-- Writes a key and takes it away again. Answers 1, or 0 if Redis is full. KEYS: the key.
if redis.pcall('SET', KEYS[1], '1', 'PX', 1000).err then
  return 0
end
redis.call('DEL', KEYS[1])
return 1

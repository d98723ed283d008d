-- Ends the session of a record, whoever's it is. KEYS: the record. ARGV: hash.
local record = redis.call('GETDEL', KEYS[1])
if record then
  redis.call('ZREM', 'sessions-of:' .. string.format('%.0f', cjson.decode(record).account_id), ARGV[1])
end

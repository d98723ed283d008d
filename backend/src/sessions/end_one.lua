-- Ends one session of an account, if it is in the account's list.
-- KEYS: what a record's key begins with, the list. ARGV: hash.
if redis.call('ZREM', KEYS[2], ARGV[1]) == 0 then
  return 0
end
-- The record may have run out before its line did.
return redis.call('DEL', KEYS[1] .. ARGV[1])

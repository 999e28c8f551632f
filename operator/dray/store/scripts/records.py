"""Of records: made, saved, told of by clients, removed."""

from __future__ import annotations

from dray.store.scripts import NOW

CREATE = (
    NOW
    + """
local job, sequence, jobs, waiting, running, key, source, outputs, uploads = unpack(KEYS)
local id, spec, state, brief, indexes, channel, body, lasting, names, input, uploaded, backend = unpack(ARGV)
if body ~= '' then
  local earlier = redis.call('GET', key)
  if earlier then
    if string.sub(earlier, 1, #body) ~= body then return 'reused' end
    return {string.sub(earlier, #body + 2)}
  end
end
if redis.call('EXISTS', job) == 1 then return {id} end
if uploaded == '1' and tonumber(redis.call('ZSCORE', uploads, id) or 0) <= now() then return 'late' end
local kept = {}
for _, name in ipairs(cjson.decode(names)) do
  local output = redis.call('HGET', source, name)
  if not output then return 'gone' end
  table.insert(kept, name)
  table.insert(kept, output)
end
if #kept > 0 then redis.call('HSET', outputs, unpack(kept)) end
if input ~= '' then redis.call('HSET', outputs, 'input', input) end
local number = redis.call('INCR', sequence)
redis.call('HSET', job, 'spec', spec, 'state', state, 'version', 0, 'sequence', number, 'brief', brief, 'indexes', indexes)
if backend ~= '' then redis.call('HSET', job, 'backend', backend) end
for _, index in ipairs({jobs, waiting, running, unpack(cjson.decode(indexes))}) do redis.call('ZADD', index, number, id) end
if body ~= '' then redis.call('SET', key, body .. ':' .. id, 'EX', lasting) end
redis.call('ZREM', uploads, id)
redis.call('PUBLISH', channel, id)
return {id}
"""
)

SAVE = """
local job, waiting, running, ended, finished, expiring = unpack(KEYS)
local id, version, fence, nonce, state, pod, finished_at, expires_at, channel = unpack(ARGV)
local at, by, saved, doomed = unpack(redis.call('HMGET', job, 'version', 'fence', 'saved', 'doomed'))
if not at or (by or '0') ~= fence then return 0 end
if at ~= version then return saved == nonce and tonumber(at) == version + 1 and 1 or 0 end
redis.call('HSET', job, 'state', state, 'pod', pod, 'version', version + 1, 'saved', nonce)
redis.call('PUBLISH', channel, id)
if finished_at == '' then return 1 end
redis.call('HSET', job, 'ended', 1)
redis.call('ZREM', waiting, id)
if not doomed then
  redis.call('ZREM', running, id)
  redis.call('ZADD', ended, redis.call('HGET', job, 'sequence'), id)
  redis.call('ZADD', finished, finished_at, id)
  if expires_at ~= '' then redis.call('ZADD', expiring, expires_at, id) end
end
return 1
"""

# Nobody owns a job that has nothing left to be done, so whoever comes first may clean up after it once it is deleted.
RETIRE = """
local job, active = KEYS[1], KEYS[2]
local id, version, fence = unpack(ARGV)
local at, by, owner = unpack(redis.call('HMGET', job, 'version', 'fence', 'owner'))
if at ~= version or (by or '0') ~= fence then return 0 end
redis.call('ZREM', active, id)
if owner then
  redis.call('ZREM', active .. ':' .. owner, id)
  redis.call('HDEL', job, 'owner', 'engine')
end
return 1
"""

FORGET = """
local job, active, log, cursors, outputs = unpack(KEYS)
local id, fence, news = unpack(ARGV)
local at, by, owner, doomed = unpack(redis.call('HMGET', job, 'version', 'fence', 'owner', 'doomed'))
if not at then return 1 end
if not doomed or (by or '0') ~= fence then return 0 end
redis.call('UNLINK', job, log, cursors, outputs)
redis.call('ZREM', active, id)
if owner then redis.call('ZREM', active .. ':' .. owner, id) end
redis.call('PUBLISH', news, id)
return 1
"""

DOOM = """
local job, active = KEYS[1], KEYS[2]
local id, nonce, lists, wake, news = unpack(ARGV)
for _, list in ipairs(cjson.decode(lists)) do redis.call('ZREM', list, id) end
local sequence, doomed, owner, indexes = unpack(redis.call('HMGET', job, 'sequence', 'doomed', 'owner', 'indexes'))
if not sequence then return 0 end
if doomed then return doomed == nonce and 1 or 0 end
for _, index in ipairs(cjson.decode(indexes or '[]')) do redis.call('ZREM', index, id) end
redis.call('HSET', job, 'doomed', nonce)
redis.call('HINCRBY', job, 'version', 1)
redis.call('ZADD', owner and active .. ':' .. owner or active, sequence, id)
redis.call('PUBLISH', wake, id)
redis.call('PUBLISH', news, id)
return 1
"""

CANCEL = """
local job = KEYS[1]
local id, level, wake = unpack(ARGV)
local at, doomed, ended, cancelled = unpack(redis.call('HMGET', job, 'version', 'doomed', 'ended', 'cancelled'))
if not at or doomed then return 'unknown' end
if ended then return 'finished' end
if tonumber(cancelled or 0) >= tonumber(level) then return 'done' end
redis.call('HSET', job, 'cancelled', level)
redis.call('HINCRBY', job, 'version', 1)
redis.call('PUBLISH', wake, id)
return 'done'
"""

HOLD = """
local job, waiting = KEYS[1], KEYS[2]
local id, hold, wake = unpack(ARGV)
local names = {'sequence', 'doomed', 'ended', 'held', 'fence', 'backend'}
local sequence, doomed, ended, held, fence, backend = unpack(redis.call('HMGET', job, unpack(names)))
if not sequence or doomed then return 'unknown' end
if ended then return 'finished' end
if (hold == '1') == (held ~= false) then return 'done' end
if backend then waiting = waiting .. ':' .. backend end
if hold == '1' then
  redis.call('HSET', job, 'held', 1)
  redis.call('ZREM', waiting, id)
else
  redis.call('HDEL', job, 'held')
  if not fence then redis.call('ZADD', waiting, sequence, id) end
end
redis.call('HINCRBY', job, 'version', 1)
redis.call('PUBLISH', wake, id)
return 'done'
"""

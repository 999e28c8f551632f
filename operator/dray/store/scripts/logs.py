"""Of logs, and of small outputs."""

from __future__ import annotations

APPEND = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local id, fence, attempt, start, finish, lines, channel = unpack(ARGV)
local at, by = unpack(redis.call('HMGET', job, 'version', 'fence'))
if not at or (by or '0') ~= fence then return 0 end
local kept = redis.call('HGET', cursors, attempt) or '0:0'
if kept == finish then return 1 end
if kept ~= start then return 0 end
local first = redis.call('HINCRBY', cursors, 'lines', lines) - lines
for i = 8, #ARGV, 2 do
  redis.call('XADD', log, '0-' .. string.format('%.0f', first + 1), 'attempt', attempt, 'blocks', ARGV[i + 1])
  first = first + ARGV[i]
end
redis.call('HSET', cursors, attempt, finish)
redis.call('PUBLISH', channel, id)
return 1
"""

READ_LOG = """
local job, log, cursors = KEYS[1], KEYS[2], KEYS[3]
local index, count, limit = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3])
local at, doomed, ended = unpack(redis.call('HMGET', job, 'version', 'doomed', 'ended'))
if not at or doomed then return false end
ended = ended and 1 or 0
local total = tonumber(redis.call('HGET', cursors, 'lines') or 0)
if index < 0 then index = math.max(total + index, 0) end
if index >= total then return {index, ended, {}} end
local first = redis.call('XREVRANGE', log, '0-' .. string.format('%.0f', index + 1), '-', 'COUNT', 1)
local last = '0-' .. string.format('%.0f', math.min(index + limit, total))
return {index, ended, redis.call('XRANGE', log, first[1][1], last, 'COUNT', count)}
"""

KEEP_OUTPUT = """
local job, outputs = KEYS[1], KEYS[2]
local fence, step, output = unpack(ARGV)
local at, by = unpack(redis.call('HMGET', job, 'version', 'fence'))
if not at or (by or '0') ~= fence then return 0 end
redis.call('HSET', outputs, step, output)
return 1
"""

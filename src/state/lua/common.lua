-- What every script begins with: bans by subject (several lines each), when each is over, what was lifted.
local bans, ends, lifted = KEYS[1], KEYS[2], KEYS[3]
local now, channel, origin = tonumber(ARGV[1]), ARGV[2], ARGV[3]
local MEMORY = 86400000
local KEPT = 8

local function number(n) return string.format('%.0f', n) end

local function fields(line)
  local all = {}
  for field in string.gmatch(line .. '\t', '([^\t]*)\t') do all[#all + 1] = field end
  return all
end

-- The bans of a subject that are remembered: lines and fields.
local function held(who)
  local all = {}
  for line in string.gmatch(redis.call('HGET', bans, who) or '', '[^\n]+') do
    local f = fields(line)
    if tonumber(f[5]) + MEMORY > now then all[#all + 1] = { line = line, f = f } end
  end
  return all
end

local function keep(who, all)
  if #all == 0 then
    redis.call('HDEL', bans, who)
    redis.call('ZREM', ends, who)
  else
    table.sort(all, function(a, b) return tonumber(a.f[5]) > tonumber(b.f[5]) end)
    local lines, last = {}, 0
    for n = 1, math.min(#all, KEPT) do
      lines[n] = all[n].line
      last = math.max(last, tonumber(all[n].f[5]))
    end
    redis.call('HSET', bans, who, table.concat(lines, '\n'))
    redis.call('ZADD', ends, number(last + MEMORY), who)
  end
  -- A little of what is over goes with each change, and all of it when nobody comes any more.
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', ends, '-inf', number(now), 'LIMIT', 0, 100)) do
    redis.call('HDEL', bans, old)
    redis.call('ZREM', ends, old)
  end
  local last = redis.call('ZREVRANGE', ends, 0, 0, 'WITHSCORES')
  if last[2] then
    redis.call('PEXPIREAT', bans, number(tonumber(last[2])))
    redis.call('PEXPIREAT', ends, number(tonumber(last[2])))
  end
end

local function tell(from, line) redis.call('PUBLISH', channel, from .. '\t' .. line) end

-- A failure was counted. KEYS[4] the failures of this subject in this jail. Answers the ban that it made, if any.
local change, member = ARGV[4], ARGV[5]
local at, find, most = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local who, jail, site = ARGV[9], ARGV[10], ARGV[11]
local first, longest, action, why, dice = tonumber(ARGV[12]), tonumber(ARGV[13]), ARGV[14], ARGV[15], tonumber(ARGV[16]) / 1000
local strikes = KEYS[4]
redis.call('ZREMRANGEBYSCORE', strikes, '-inf', number(at - find))
redis.call('ZADD', strikes, number(at), member)
redis.call('PEXPIRE', strikes, number(math.max(find, 1)))
local count = redis.call('ZCARD', strikes)
if count > 1024 then redis.call('ZREMRANGEBYRANK', strikes, 0, count - 1025) end
if count < most then
  tell(origin, change)
  return ''
end
local level, rest = 0, {}
for _, old in ipairs(held(who)) do
  if old.f[2] == jail and old.f[3] == site then
    local till = tonumber(old.f[5])
    if till > now then
      redis.call('DEL', strikes)
      return 'banned\t' .. old.line
    end
    level = math.max(0, tonumber(old.f[6]) + 1 - math.floor((now - till) / math.max(longest, 1)))
  else
    rest[#rest + 1] = old
  end
end
level = math.min(level, 255)
local base = math.min(first * 2 ^ math.min(level, 60), longest)
local jitter = math.floor(base / 8 * dice)
local length = base + jitter
if length > longest then length = base - jitter end
local line = table.concat({ who, jail, site, number(now), number(now + length), number(level), number(count), action, why }, '\t')
rest[#rest + 1] = { line = line, f = fields(line) }
keep(who, rest)
redis.call('DEL', strikes)
-- From nobody, so that everybody takes it over, the one who counted the failure too.
tell('*', 'banned\t' .. line)
return 'banned\t' .. line

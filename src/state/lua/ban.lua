-- A ban was made. ARGV[4] its line. KEYS[4] the failures that made it. Answers what is known better, or nothing.
local line = ARGV[4]
local f = fields(line)
local who, jail, site, since, till, level = f[1], f[2], f[3], tonumber(f[4]), tonumber(f[5]), tonumber(f[6])
redis.call('DEL', KEYS[4])
local marks = { '*', who .. '\t*\t*', who .. '\t*\t' .. site, who .. '\t' .. jail .. '\t*', who .. '\t' .. jail .. '\t' .. site }
for _, mark in ipairs(marks) do
  local at = redis.call('ZSCORE', lifted, mark)
  if at and tonumber(at) >= since then return 'lifted\t' .. who .. '\t' .. jail .. '\t' .. site end
end
local rest = {}
for _, old in ipairs(held(who)) do
  if old.f[2] == jail and old.f[3] == site then
    if jail ~= 'by-hand' and tonumber(old.f[5]) >= till and tonumber(old.f[6]) >= level then
      return 'banned\t' .. old.line
    end
  else
    rest[#rest + 1] = old
  end
end
rest[#rest + 1] = { line = line, f = f }
keep(who, rest)
tell(origin, 'banned\t' .. line)
return ''

-- The health of a DatabaseBootstrap for Argo CD; it reads the status as kstatus does, so Flux needs no such file.
local s, g = obj.status or {}, obj.metadata.generation
if obj.spec.suspend then return {status = "Suspended", message = "Suspended"} end
local ready, verdict = nil, nil
for _, c in ipairs(s.conditions or {}) do
  if c.observedGeneration == g and c.status == "True" then
    if c.type == "Stalled" then verdict = {status = "Degraded", message = c.message} end
    if c.type == "Reconciling" then verdict = {status = "Progressing", message = c.message} end
  end
  if c.type == "Ready" then ready = c end
end
if s.observedGeneration ~= g then return {status = "Progressing", message = "Waiting for the operator"} end
if verdict then return verdict end
if ready and ready.status == "True" and ready.observedGeneration == g then
  return {status = "Healthy", message = ready.message}
end
return {status = "Progressing", message = ready and ready.message or "Waiting for the operator"}

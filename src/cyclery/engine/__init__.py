"""The training engine: resolved settings in, records and weights out.

Schedules are tensors, a step is a pure function, and a run replays captured steps. Settings are
plain dicts; only numpy, torch and safetensors are needed.
"""

# Raised whenever the engine computes something else from the same settings; part of every run key.
ENGINE_VERSION = 3

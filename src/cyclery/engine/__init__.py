"""The training engine: schedules are tensors, a step is a pure function, a run is a replay.

It runs on resolved settings (plain dicts) and needs only numpy, torch and safetensors.
"""

# Raised whenever the engine computes something else from the same settings; part of every run key.
ENGINE_VERSION = 2

"""The engine's speed against training loops written by hand: `cyclery bench`.

``python -m cyclery.bench`` does the same with nothing but numpy, torch and safetensors installed.
"""

"""Batched augmentation on the device, and its settings."""

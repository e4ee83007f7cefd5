"""What every package uses: errors, atomic file writes, locks, digests, settings, signals, logs."""

"""What every room uses: errors, whole files, locks, seals, signals, words."""

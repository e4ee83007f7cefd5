"""What runs, what this machine has, and whether all files of a tier are whole."""

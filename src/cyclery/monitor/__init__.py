"""State of a project: running jobs, this machine's environment, integrity of files."""

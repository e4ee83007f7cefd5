"""What several tests build: data, runs, records, projects, checkouts."""

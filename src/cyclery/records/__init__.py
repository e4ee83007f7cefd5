"""What a run leaves: the run store, records, metrics, range tests and the progress of jobs."""

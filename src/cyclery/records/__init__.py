"""What a run leaves: types and files of records, evidence, metrics and job progress."""

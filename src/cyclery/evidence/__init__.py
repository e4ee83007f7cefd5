"""From records to verdicts: comparisons, tests, tables and curves of one part of a paper."""

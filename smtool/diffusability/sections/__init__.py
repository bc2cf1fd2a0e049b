"""One file for each section of the report: its model, its measurement, its sentences, its tables and its plots."""

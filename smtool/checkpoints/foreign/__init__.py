"""Files of other tools: one file for each published format, with its key names."""

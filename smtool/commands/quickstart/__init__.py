"""`smtool quickstart`: the whole of smtool, small, on one page."""

"""One package per command: where rooms meet and files are opened."""

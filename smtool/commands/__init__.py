"""The commands, one package or module each: they open files and combine the other packages."""

"""L4: the command line, which is also how the processes are started."""

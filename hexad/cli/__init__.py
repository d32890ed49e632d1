"""One file a verb. The only room with deferred imports, so that `hexad --help` is instant."""

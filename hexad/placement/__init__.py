"""Where things go and whether they fit: the memory plan, by arithmetic, before anything is loaded."""

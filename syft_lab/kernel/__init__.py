"""The owner's side: the service in the owner's kernel, its journal, its store, and the one exit for values."""

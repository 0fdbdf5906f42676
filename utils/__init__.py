"""Small named modules with callers in several folders; nothing here imports the rest of the project."""

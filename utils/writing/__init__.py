"""What the project writes: which files it may replace, and text of others that is shown or stored."""

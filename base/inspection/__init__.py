"""A network as a table of its parts, and the reasons why it cannot take an input."""

"""From files and the command line to one plain dict."""

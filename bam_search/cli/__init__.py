"""The command line. Its commands import late, so that --help answers at once."""

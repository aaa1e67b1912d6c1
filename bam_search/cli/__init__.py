"""HOW A PERSON ASKS: the command line. Imports late, so that --help answers at once."""

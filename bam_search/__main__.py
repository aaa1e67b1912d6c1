"""`python -m bam_search`."""

from bam_search.cli.main import main

main()

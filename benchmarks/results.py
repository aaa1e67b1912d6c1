"""Handing over what a benchmark found."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bam_search.files import write


def deliver(found: Mapping[str, Any], out: Path | None) -> None:
    """Print the figures as JSON, and write them to `out` if there is one."""
    text = json.dumps(found, indent=2) + "\n"
    if out:
        write(out, text)
    print(text)

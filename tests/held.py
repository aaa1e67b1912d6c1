"""Nets of a user's own: a plain one, and one whose trainings wait where a test interrupts them.

They wait whatever the machine's speed. Also the smallest net, with a study of its own.
"""

from pathlib import Path

OWN_NET = """
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


class MyNet(nn.Module):
    def __init__(self, num_classes, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.one, self.pool, self.two = Block(width), nn.MaxPool2d(2), Block(width)
        classify = nn.Linear(width, num_classes)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), classify)

    def forward(self, x):
        return self.head(self.two(self.pool(self.one(self.stem(x)))))
"""

NET = f"""{OWN_NET}

import os
import time
from pathlib import Path

HERE = Path(__file__).parent


class Net(MyNet):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.measured = False

    def forward(self, x):
        trained = HERE / f"trained-by-{{os.getpid()}}"
        if self.training:
            if (HERE / "hold").exists() and trained.exists() and len(trained.read_text()) == 2:
                time.sleep(1000)
        elif not self.measured and len(x) > 2 and not x.is_meta:
            self.measured = True
            with trained.open("a") as file:
                file.write("+")
        return super().forward(x)
"""


def held_space(folder: Path) -> str:
    """The search space of the net that waits, in a file.

    While the file `hold` lies beside it, each process trains two; the third waits for ever.
    """
    (folder / "held.py").write_text(NET)
    return f"{folder / 'held.py'}:Net"


TINY_NET = """
from torch import nn
def net(classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, classes),
    )
"""
TINY_STUDY = """
question = "Does it help?"
space = "nets.py:net"
trials = 2
references = { "no attention" = "none", "SE" = "1=se(r=2)" }
search = { sites = ["1"], modules.se.r = [2] }
[cpu]
[gpu]
"""


def tiny_study(folder: Path) -> Path:
    """Write the smallest net and a study of it into the folder, and return the study's file."""
    (folder / "nets.py").write_text(TINY_NET)
    study = folder / "tiny.toml"
    study.write_text(TINY_STUDY)
    return study

"""A net whose trainings wait where a test wants to interrupt them, whatever the machine's speed."""

from pathlib import Path

NET = """
import os
import time
from pathlib import Path
from torch import nn

HERE = Path(__file__).parent


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return (x + self.norm(self.conv(x))).relu()


class Net(nn.Module):
    def __init__(self, num_classes, width=16):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 4, 4)
        self.one, self.pool, self.two = Block(width), nn.MaxPool2d(2), Block(width)
        classify = nn.Linear(width, num_classes)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), classify)
        self.measured = False

    def forward(self, x):
        trained = HERE / f"trained-by-{os.getpid()}"
        if self.training:
            if (HERE / "hold").exists() and trained.exists() and len(trained.read_text()) == 2:
                time.sleep(1000)
        elif not self.measured and len(x) > 2 and not x.is_meta:
            self.measured = True
            with trained.open("a") as file:
                file.write("+")
        return self.head(self.two(self.pool(self.one(self.stem(x)))))
"""


def held_space(folder: Path) -> str:
    """The search space of that net: while the file `hold` lies beside it, each process trains two.

    The third training of a process waits for ever.
    """
    (folder / "held.py").write_text(NET)
    return f"{folder / 'held.py'}:Net"

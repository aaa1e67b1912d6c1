"""Backbones, one family a file. What torchvision has exactly is torchvision's."""

"""Pictures in files, for all tasks on pictures: found, read, decoded and packed once."""

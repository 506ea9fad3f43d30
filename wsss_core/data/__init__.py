"""Data sets as files: readers, decoding, augmentation, the image table and its shards."""

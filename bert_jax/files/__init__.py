"""Reading and writing on disks and in buckets: paths, whole writes, locks, JSON; the error that names a file."""

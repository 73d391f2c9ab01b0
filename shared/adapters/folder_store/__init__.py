"""A folder of Part 10 files, such as a destination of ours, that is searched and retrieved from."""

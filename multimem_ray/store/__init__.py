"""What lies on disk: names, columns, files, markers and parts, under whoever writes and reads."""

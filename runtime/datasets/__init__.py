"""Images and labels of other people's files, one file a format."""

"""Models: list, rename, alias, import, download, delete."""
